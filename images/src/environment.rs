//! The environment of a configuration that brings its own `Containerfile`: built by the engine, then a
//! base like any other. The context is the configuration's folder, without what says how the model is
//! run; no artifact goes through it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mlwm_engines::{BuildRequest, Engine};
use mlwm_spec::Digest;
use mlwm_storage::Content;

use crate::Error;
use crate::engine::streamed;
use crate::plan::hash;
use crate::tarball::{FileSource, LayerFile, Tarball};

/// Name of the file that says how an environment is built.
pub const CONTAINERFILE: &str = "Containerfile";
/// What the references of environments begin with.
pub(crate) const REPOSITORIES: &str = "mlwm-environment/";
/// Files of a configuration that do not change its environment.
const NOT_IN_IT: [&str; 4] = ["config.yaml", "mlwm.lock", "README.md", ".git"];
/// A file that is larger is no part of an environment's source.
const LARGEST: u64 = 256 << 20;

/// The environment of a configuration.
#[derive(Clone, Debug)]
pub struct Environment {
    /// What the engine calls it: it names the content, so that one that is there need not be built.
    pub reference: String,
    context: Tarball,
    base: Option<String>,
}

impl Environment {
    /// Reads the context. `base` becomes the build argument `BASE`.
    pub fn of(folder: &Path, configuration: &str, base: Option<&str>) -> Result<Self, Error> {
        let mut files = Vec::new();
        collect(folder, Path::new(""), &mut files)?;
        let context = Tarball::new(files)?;
        let identity = Digest::of(format!("{}\n{base:?}", context.identity()));
        Ok(Self {
            reference: format!("{REPOSITORIES}{configuration}:{}", &identity.hex()[..16]),
            context,
            base: base.map(str::to_owned),
        })
    }

    /// Builds it, unless the engine has it. Each line of the builder goes to `on_line`.
    pub async fn build(
        &self,
        engine: &Engine,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        if engine.image(&self.reference).await?.is_some() {
            return Ok(());
        }
        let request = BuildRequest {
            tag: self.reference.clone(),
            dockerfile: CONTAINERFILE.to_owned(),
            labels: BTreeMap::new(),
            build_args: self
                .base
                .iter()
                .map(|base| ("BASE".to_owned(), base.clone()))
                .collect(),
        };
        let (context, reference) = (self.context.clone(), self.reference.clone());
        let (stream, writing) = streamed(move |output| {
            let mut write = || {
                io::copy(&mut context.open()?, output)?;
                output.flush()
            };
            write().map_err(|source| Error::Archive { reference, source })
        });
        let built = engine.build(stream, &request, on_line).await;
        let written = writing.await;
        let written = written.unwrap_or_else(|panic| Err(Error::Broken(panic.to_string())));
        match (built, written) {
            // The engine gave up first; what it said is the reason.
            (Err(error), Err(Error::Archive { source, .. }))
                if source.kind() == io::ErrorKind::BrokenPipe =>
            {
                Err(error.into())
            }
            (_, Err(error)) => Err(error),
            (built, Ok(())) => Ok(built.map(drop)?),
        }
    }
}

/// The regular files below a folder; other kinds are refused.
fn collect(folder: &Path, below: &Path, files: &mut Vec<LayerFile>) -> Result<(), Error> {
    let at = folder.join(below);
    for entry in fs::read_dir(&at).map_err(Error::local("read", &at))? {
        let entry = entry.map_err(Error::local("read", &at))?;
        let path: PathBuf = below.join(entry.file_name());
        if below.as_os_str().is_empty() && NOT_IN_IT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let found = entry.path();
        let refused = |why: &str| Error::Context {
            path: found.clone(),
            why: why.to_owned(),
        };
        let metadata = entry.metadata().map_err(Error::local("look at", &found))?;
        if metadata.is_dir() {
            collect(folder, &path, files)?;
            continue;
        }
        if !metadata.is_file() {
            return Err(refused(
                "it is neither a file nor a folder: copy what it stands for",
            ));
        }
        if metadata.len() > LARGEST {
            return Err(refused(
                "it is larger than 256 MiB: what a model was trained to belongs into its artifact",
            ));
        }
        let name = path
            .to_str()
            .ok_or_else(|| refused("its name is not UTF-8: rename it"))?;
        let mut file = fs::File::open(&found).map_err(Error::local("open", &found))?;
        let (digest, size) = hash(&mut file).map_err(Error::local("read", &found))?;
        files.push(LayerFile {
            path: name.to_owned(),
            executable: metadata.permissions().mode() & 0o100 != 0,
            size,
            digest,
            source: FileSource::File(found),
        });
    }
    Ok(())
}
