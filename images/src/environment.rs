//! The environment of a configuration that brings its own `Containerfile`: built by the engine, then a
//! base like any other. The context is the configuration's folder, without what says how the model is
//! run and without what `.containerignore` or `.dockerignore` leave out; no artifact goes through it.

mod ignore;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mlwm_engines::{BuildRequest, BuildSecret, Engine};
use mlwm_spec::Digest;
use mlwm_storage::Content;

use crate::Error;
use crate::engine::streamed;
use crate::plan::hash;
use crate::tarball::{FileSource, LayerFile, Tarball};
use ignore::Ignored;

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
    /// The secrets that its steps read.
    secrets: BTreeSet<String>,
}

impl Environment {
    /// Reads the context. `base` becomes the build argument `BASE`.
    pub fn of(folder: &Path, configuration: &str, base: Option<&str>) -> Result<Self, Error> {
        let mut files = Vec::new();
        collect(folder, "", &Ignored::of(folder)?, &mut files)?;
        let context = Tarball::new(files)?;
        let path = folder.join(CONTAINERFILE);
        let text = fs::read_to_string(&path).map_err(Error::local("read", &path))?;
        let identity = Digest::of(format!("{}\n{base:?}", context.identity()));
        Ok(Self {
            reference: format!("{REPOSITORIES}{configuration}:{}", &identity.hex()[..16]),
            context,
            base: base.map(str::to_owned),
            secrets: secrets_of(&text),
        })
    }

    /// Whether a step of it reads the secret with this identifier.
    pub fn reads(&self, secret: &str) -> bool {
        self.secrets.contains(secret)
    }

    /// Builds it, unless the engine has it. Each line of the builder goes to `on_line`.
    pub async fn build(
        &self,
        engine: &Engine,
        secrets: &[BuildSecret],
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        if engine.image(&self.reference).await?.is_some() {
            return Ok(());
        }
        let given: Vec<&str> = secrets.iter().map(BuildSecret::id).collect();
        if let Some(id) = self.secrets.iter().find(|id| !given.contains(&id.as_str())) {
            return Err(Error::NoSecret {
                reference: self.reference.clone(),
                id: id.clone(),
            });
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
            secrets: secrets.to_vec(),
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

/// The regular files below a folder that are not ignored; other kinds are refused. `below` is a path
/// with `/` at its end, if it has one.
fn collect(
    folder: &Path,
    below: &str,
    ignored: &Ignored,
    files: &mut Vec<LayerFile>,
) -> Result<(), Error> {
    let at = folder.join(below);
    for entry in fs::read_dir(&at).map_err(Error::local("read", &at))? {
        let entry = entry.map_err(Error::local("read", &at))?;
        let found = entry.path();
        let refused = |why: &str| Error::Context {
            path: found.clone(),
            why: why.to_owned(),
        };
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(refused("its name is not UTF-8: rename it"));
        };
        if below.is_empty() && (NOT_IN_IT.contains(&name) || ignore::FILES.contains(&name)) {
            continue;
        }
        let path = format!("{below}{name}");
        let metadata = entry.metadata().map_err(Error::local("look at", &found))?;
        if metadata.is_dir() {
            if !ignored.has_all_of(&path) {
                collect(folder, &format!("{path}/"), ignored, files)?;
            }
            continue;
        }
        // The builder needs it even where no step may copy it.
        if ignored.has(&path) && path != CONTAINERFILE {
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
        let mut file = fs::File::open(&found).map_err(Error::local("open", &found))?;
        let (digest, size) = hash(&mut file).map_err(Error::local("read", &found))?;
        files.push(LayerFile {
            path,
            executable: metadata.permissions().mode() & 0o100 != 0,
            size,
            digest,
            source: FileSource::File(found),
        });
    }
    Ok(())
}

/// The identifiers of the secrets that the steps of a `Containerfile` mount.
fn secrets_of(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    let mounts = words.filter_map(|word| word.strip_prefix("--mount="));
    let ids = mounts.filter_map(|mount| {
        let options: BTreeMap<&str, &str> = mount
            .split(',')
            .filter_map(|option| option.split_once('='))
            .collect();
        let named = ["target", "dst", "destination"];
        let target = || named.iter().find_map(|name| options.get(name));
        let id = options.get("id").or_else(target)?;
        let id = id.trim_matches('"').rsplit('/').next()?;
        // What a variable stands for, only the builder knows.
        (options.get("type") == Some(&"secret") && !id.contains('$')).then(|| id.to_owned())
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_of_a_containerfile_are_known_before_it_is_built() {
        let text = "FROM a\n# RUN --mount=type=secret,id=not\n\
            RUN --mount=type=cache,id=pip,target=/root \\\n  --mount=type=secret,id=token,required=true x\n\
            RUN --mount=type=secret,target=/run/secrets/other y\n\
            RUN --mount=id=third,type=secret z\nRUN --mount=type=secret,id=$NAME z\n";
        let found: Vec<String> = secrets_of(text).into_iter().collect();
        assert_eq!(found, ["other", "third", "token"]);
    }

    #[test]
    fn the_context_is_the_folder_without_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in [
            "Containerfile",
            "config.yaml",
            "mlwm.lock",
            "a/b.py",
            "a/b.log",
            "logs/c",
        ] {
            write(path, "text");
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("logs/link")).unwrap();
        let names = || {
            let mut files = Vec::new();
            collect(folder.path(), "", &Ignored::of(folder.path())?, &mut files)?;
            let mut names: Vec<String> = files.into_iter().map(|file| file.path).collect();
            names.sort();
            Ok::<_, Error>(names.join(" "))
        };
        let error = names().unwrap_err().to_string();
        assert!(error.contains("logs/link"), "{error}");
        write(".dockerignore", "logs\n");
        assert_eq!(names().unwrap(), "Containerfile a/b.log a/b.py");
        // The other is read first.
        write(".containerignore", "*\n!a/*.py\n");
        assert_eq!(names().unwrap(), "Containerfile a/b.py");
        let first = Environment::of(folder.path(), "danra", None).unwrap();
        write("a/b.log", "other");
        let same = Environment::of(folder.path(), "danra", None).unwrap();
        assert_eq!(first.reference, same.reference);
        write("a/b.py", "other");
        let other = Environment::of(folder.path(), "danra", None).unwrap();
        assert_ne!(first.reference, other.reference);
        write(".containerignore", "a[b\n");
        let error = names().unwrap_err().to_string();
        assert!(
            error.contains(".containerignore") && error.contains("a[b"),
            "{error}"
        );
    }
}
