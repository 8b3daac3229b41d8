//! Whether a task that failed is tried again: by what made it fail.

use std::time::Duration;

use mlwm_spec::ExitCode;
use mlwm_spec::configuration::Retries;

/// The longest pause before another attempt.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a task failed, as far as trying again is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A store or an engine: it may be better soon.
    Infrastructure,
    /// The container used more memory than it may.
    Memory,
    /// The container took longer than it may.
    Time,
    /// The model: the same again, most likely.
    Model,
    /// What no attempt changes: configuration, inputs, artifact, image; or somebody said stop.
    Settled,
}

fn cause(code: ExitCode) -> Cause {
    match code {
        ExitCode::StorageFailed | ExitCode::EngineUnavailable => Cause::Infrastructure,
        ExitCode::OutOfMemory => Cause::Memory,
        ExitCode::Timeout => Cause::Time,
        ExitCode::ContainerFailed | ExitCode::Incomplete => Cause::Model,
        _ => Cause::Settled,
    }
}

/// The attempts of one task in one run.
#[derive(Debug)]
pub(crate) struct Attempts {
    retries: Retries,
    /// By cause, in the order of [`Cause`].
    failed: [u32; 4],
}

impl Attempts {
    pub(crate) fn new(retries: &Retries) -> Self {
        Self {
            retries: retries.clone(),
            failed: [0; 4],
        }
    }

    /// The pause before the next attempt after one that ended so; `None` if there shall be none.
    /// It doubles with each failure of the same cause.
    pub(crate) fn after(&mut self, code: ExitCode) -> Option<Duration> {
        let (index, allowed) = match cause(code) {
            Cause::Infrastructure => (0, self.retries.infrastructure),
            Cause::Memory => (1, self.retries.out_of_memory),
            Cause::Time => (2, self.retries.timeout),
            Cause::Model => (3, self.retries.model),
            Cause::Settled => return None,
        };
        let failed = &mut self.failed[index];
        if *failed >= allowed {
            return None;
        }
        let pause = self.retries.delay.duration();
        let pause = pause.saturating_mul(2_u32.saturating_pow(*failed));
        *failed += 1;
        Some(pause.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infrastructure_is_tried_again_and_the_model_is_not() {
        let retries = Retries::default();
        let mut attempts = Attempts::new(&retries);
        let pauses: Vec<_> = (0..4)
            .map(|_| attempts.after(ExitCode::StorageFailed))
            .collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pauses, [seconds(5), seconds(10), None, None]);
        for code in ExitCode::ALL {
            let again = Attempts::new(&retries).after(code).is_some();
            let infrastructure = [ExitCode::StorageFailed, ExitCode::EngineUnavailable];
            assert_eq!(again, infrastructure.contains(&code), "{code:?}");
        }
    }

    #[test]
    fn each_cause_has_its_own_number() {
        let retries: Retries = serde_json::from_str(
            r#"{"infrastructure": 1, "out_of_memory": 1, "model": 1, "timeout": 1, "delay": "PT1H"}"#,
        )
        .unwrap();
        let mut attempts = Attempts::new(&retries);
        for code in [
            ExitCode::StorageFailed,
            ExitCode::OutOfMemory,
            ExitCode::Timeout,
            ExitCode::Incomplete,
        ] {
            assert_eq!(attempts.after(code), Some(LONGEST), "{code:?}");
            assert_eq!(attempts.after(code), None, "{code:?}");
        }
        assert_eq!(attempts.after(ExitCode::ContainerFailed), None);
    }
}
