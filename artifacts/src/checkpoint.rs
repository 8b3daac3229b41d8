//! The checkpoint that an artifact is built from: it must be one, and loading it must import
//! nothing that could do harm. It is a pickle, and a pickle is a program; nothing of it is run.

use crate::error::{Error, io_error};
use crate::input::Input;
use crate::pickle::{self, Checkpoint, CheckpointPolicy, Global, PickleError, Verdict};

/// Finds out what loading the checkpoint imports, and refuses what the policy does not allow.
pub(crate) fn check(input: &Input, policy: &CheckpointPolicy) -> Result<Checkpoint, Error> {
    let path = input.path();
    let found = pickle::inspect(input.open()?, input.size()).map_err(|fault| match fault {
        PickleError::Io(error) => io_error("read", path)(error),
        source => Error::Checkpoint {
            path: path.to_owned(),
            source,
        },
    })?;
    let refused = policy.refused(&found.globals);
    if refused.is_empty() {
        return Ok(found);
    }
    Err(Error::CheckpointImports {
        path: path.to_owned(),
        imports: listed(&refused),
    })
}

/// The imports for a message: a checkpoint may have thousands.
fn listed(refused: &[(&Global, Verdict)]) -> String {
    const MOST: usize = 40;
    let mut imports: Vec<String> = refused
        .iter()
        .take(MOST)
        .map(|(global, verdict)| match verdict {
            Verdict::Dangerous => format!("{global} (dangerous)"),
            _ => global.to_string(),
        })
        .collect();
    if refused.len() > MOST {
        imports.push(format!("{} more", refused.len() - MOST));
    }
    imports.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8], allow: &[&str]) -> Result<Checkpoint, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        std::fs::write(&path, bytes).unwrap();
        let allow = allow.iter().map(|name| (*name).to_owned()).collect();
        check(&Input::at(&path).unwrap(), &CheckpointPolicy { allow })
    }

    #[test]
    fn tells_checkpoints_from_other_files() {
        // The pickle of an empty dictionary.
        assert!(checked(b"\x80\x02}q\x00.", &[]).is_ok());
        for other in [&b""[..], b"PK", b"version https://git-lfs", b"\x80\x02"] {
            let error = checked(other, &[]).unwrap_err();
            assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_must_be_allowed_by_name() {
        let pickle = b"cmy.model\nConfig\n.";
        let error = checked(pickle, &[]).unwrap_err();
        assert!(
            error.to_string().contains("import my.model.Config, "),
            "{error}"
        );
        let error = checked(b"cos\nsystem\n.", &["os.*"]).unwrap_err();
        assert!(
            error.to_string().contains("os.system (dangerous)"),
            "{error}"
        );
        let found = checked(pickle, &["my.model.Config"]).unwrap();
        assert_eq!(found.globals[0].to_string(), "my.model.Config");
    }
}
