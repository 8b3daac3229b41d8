//! Names of the members of an artifact (format §2).

/// What the artifact is called and the size and SHA-256 of every other member.
pub const ARTIFACT_YAML: &str = "artifact.yaml";
/// The PyTorch or Lightning checkpoint: a pickle, which mlwm never opens.
pub const CHECKPOINT_PICKLE: &str = "checkpoint.pkl";
/// The step model as ONNX.
pub const CHECKPOINT_ONNX: &str = "checkpoint.onnx";
/// What the ONNX model needs besides its weights.
pub const INTERFACE_JSON: &str = "interface.json";
/// The neural-lam configuration.
pub const NEURAL_LAM_CONFIG: &str = "configs/config.yaml";
/// The arguments of the training command.
pub const TRAINING_ARGUMENTS: &str = "training_cli_args.yaml";

/// Longest name of a member, in bytes.
const MAX_NAME: usize = 512;

/// A configuration, by its file name.
pub(crate) fn config_member(file: &str) -> String {
    format!("configs/{file}")
}

/// The configuration of a datastore.
pub fn datastore_config_member(datastore: &str) -> String {
    format!("configs/{datastore}.datastore.yaml")
}

/// The folder (a Zarr group) of the training statistics of a datastore, without a final `/`.
pub fn statistics_member(datastore: &str) -> String {
    format!("stats/{datastore}.datastore.stats.zarr")
}

/// What is wrong with the name of a member, if anything: a name must stay inside the folder that
/// the artifact is unpacked to, and mean the same file everywhere.
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Some("is empty or longer than 512 bytes");
    }
    if !name.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Some("has characters that are not printable ASCII");
    }
    if name.contains('\\') || name.contains(':') {
        return Some("has a backslash or a colon");
    }
    if name.starts_with('/') {
        return Some("is absolute");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("has an empty part, `.` or `..`");
    }
    None
}

/// Whether this can be the name of an artifact: letters, digits, `.`, `_`, `-`, no leading dot.
pub(crate) fn is_artifact_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["artifact.yaml", "stats/a.zarr/c/0", "a b/c"] {
            assert_eq!(name_fault(good), None, "{good}");
        }
        let long = "x".repeat(513);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "C:x",
            "a\0b",
            "ä",
            "a\nb",
            &long,
        ] {
            assert!(name_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn artifact_names() {
        for good in ["tiny-graph-lam", "a", "v1.2_x"] {
            assert!(is_artifact_name(good), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "a b", "..", "ä"] {
            assert!(!is_artifact_name(bad), "{bad}");
        }
    }
}
