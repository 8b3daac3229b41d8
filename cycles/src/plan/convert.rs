//! The containers that make of inputs what the model reads.

use std::collections::BTreeMap;
use std::path::Path;

use mlwm_spec::bytes::ByteSize;
use mlwm_spec::configuration::{Convert, Resources};
use mlwm_spec::contract::{convert, env};
use mlwm_spec::{AnalysisTime, Period};
use serde::{Deserialize, Serialize};

/// What a converter may use that does not say it: it runs beside models.
const CPUS: f64 = 1.0;
const MEMORY: ByteSize = ByteSize(4 << 30);
const TIMEOUT_SECONDS: i64 = 3600;
/// What it may write beside as much as the input has.
const MORE: u64 = 1 << 20;

/// The container that makes of an input what the model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedConverter {
    /// Reference of its image.
    pub image: String,
    /// What it is told.
    pub environment: BTreeMap<String, String>,
    /// What it may use.
    pub resources: Resources,
    /// Time after which it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

impl PlannedConverter {
    /// The converter of the input called `name`, which the model reads at `internal_path`.
    pub(super) fn new(
        configured: &Convert,
        name: &str,
        internal_path: &str,
        analysis_time: AnalysisTime,
        member: u32,
    ) -> Self {
        let mut environment: BTreeMap<String, String> =
            configured.environment.clone().into_iter().collect();
        let told = [
            (env::MLWM_CONTRACT, "1".to_owned()),
            (env::ANALYSIS_TIME, analysis_time.to_string()),
            (env::MLWM_MEMBER, member.to_string()),
            (convert::MLWM_CONVERT_IN, format!("{}/{name}", convert::IN)),
            (
                convert::MLWM_CONVERT_OUT,
                format!("{}/{}", convert::OUT, file_name(internal_path)),
            ),
        ];
        environment.extend(told.map(|(key, value)| (key.to_owned(), value)));
        let resources = &configured.resources;
        Self {
            image: configured.docker_image.clone(),
            environment,
            resources: Resources {
                cpus: resources.cpus.or(Some(CPUS)),
                memory: resources.memory.or(Some(MEMORY)),
                ..resources.clone()
            },
            timeout: configured.timeout.or(Period::from_seconds(TIMEOUT_SECONDS)),
        }
    }

    /// Bytes that it may write of an input of so many.
    pub(crate) fn room(&self, staged: u64) -> u64 {
        let said = self.resources.disk.map(|disk| disk.0);
        said.unwrap_or(staged.saturating_add(MORE))
    }
}

/// What the converter of an input calls what it makes: the last part of where the model reads it.
pub(crate) fn file_name(internal_path: &str) -> String {
    let name = Path::new(internal_path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
