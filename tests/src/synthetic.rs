//! The synthetic model of `tests/oracles/synthetic.py` in an image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::site::{program, ran};

/// An image of the built-in runner with the model that `synthetic.py make` wrote to a folder.
pub fn image(name: &str, folder: &Path) -> String {
    let reference = format!("mlwm-test/{name}:latest");
    fs::copy(program("mlwm-runner"), folder.join("artifact/mlwm-runner")).unwrap();
    let library = std::env::var("MLWM_ONNXRUNTIME").expect("MLWM_ONNXRUNTIME names the library");
    fs::copy(library, folder.join("artifact/libonnxruntime.so")).unwrap();
    let base = std::env::var("MLWM_TEST_BASE_IMAGE").unwrap_or("mlwm-base:bookworm".into());
    let text = format!(
        "FROM {base}
COPY mlwm-runner libonnxruntime.so /usr/local/lib/
COPY checkpoint.onnx interface.json /workspace/inference_artifact/
ENV ORT_DYLIB_PATH=/usr/local/lib/libonnxruntime.so
LABEL io.mlwm.streaming=1
ENTRYPOINT [\"/usr/local/lib/mlwm-runner\"]
"
    );
    fs::write(folder.join("artifact/Dockerfile"), text).unwrap();
    let built = Command::new("docker")
        .args(["build", "--quiet", "--tag", &reference])
        .arg(folder.join("artifact"))
        .output()
        .unwrap();
    ran(&built).expect(0, &[]);
    reference
}
