//! The secrets here are made up, and put together where they are used: no scanner finds them in this
//! file.

use std::path::Path;

use base64::Engine;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const RANDOM: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYzQ84kLpT2vNs";

fn file(path: &str, text: &str) -> Vec<Finding> {
    scan_file(path, &mut text.as_bytes()).unwrap()
}

fn whats(path: &str, text: &str) -> Vec<String> {
    file(path, text)
        .into_iter()
        .map(|found| found.what)
        .collect()
}

fn environment(variables: &[&str]) -> Vec<Finding> {
    scan_config(&json!({ "config": { "Env": variables } }))
}

#[test]
fn a_base_may_be_called_after_a_secret_and_hold_none() {
    let found = |base: &str| {
        let labels = json!({ "org.opencontainers.image.base.name": base });
        scan_config(&json!({ "config": { "Labels": labels } }))
    };
    for base in [
        "mlwm-environment/wind-token:3f9c1b7e5d2a4860",
        "host.org/top-secret:v1@sha256:3f9c1b7e5d2a48603f9c1b7e5d2a48603f9c1b7e5d2a48603f9c1b7e5d2a4860",
    ] {
        assert_eq!(found(base), [], "{base}");
    }
    let key = format!("host.org/a:{}{}", "AKIA", "Q3EGRZ7LT5WXN2VB");
    assert_eq!(found(&key).len(), 1);
}

#[test]
fn every_rule_finds_its_secret_once_and_does_not_say_it() {
    let auth = base64::engine::general_purpose::STANDARD.encode("robot:hunter2hunter");
    let begin = |kind: &str| format!("-----{} {kind}-----", "BEGIN");
    let hex = "3f9c1b7e5d2a4860".repeat(4);
    let named = "a value of a name that says it is a secret";
    let random = "a value that looks drawn at random, as keys are";
    let cases = [
        (
            "a.yaml",
            format!("id: {}{}", "AKIA", "Q3EGRZ7LT5WXN2VB"),
            "an AWS access key id",
        ),
        (
            "a.py",
            format!("x('{}{}')", "ASIA", "Q3EGRZ7LT5WXN2VB"),
            "an AWS access key id",
        ),
        (
            "credentials",
            format!("aws_secret_access_key = {RANDOM}"),
            "an AWS secret access key",
        ),
        (
            "a.py",
            format!("aws_secret = \"{RANDOM}\""),
            "an AWS secret access key",
        ),
        ("id_rsa", begin("RSA PRIVATE KEY"), "a private key"),
        ("id_ec", begin("EC PRIVATE KEY"), "a private key"),
        ("id", begin("OPENSSH PRIVATE KEY"), "a private key"),
        ("id", begin("PRIVATE KEY"), "a private key"),
        ("gpg", begin("PGP PRIVATE KEY BLOCK"), "a private key"),
        (
            "a.key",
            "untrusted comment: rsign encrypted secret key".into(),
            "a private key",
        ),
        (
            "account.json",
            format!(
                "\"data\": \"{}\\nMIIEvQIBADANBgkqhkiG",
                begin("PRIVATE KEY")
            ),
            "a private key",
        ),
        (
            "a.md",
            format!("{}{}", "ghp_", &RANDOM[..36]),
            "a GitHub token",
        ),
        (
            "a.md",
            format!("{}{}", "github_pat_", &RANDOM[..36]),
            "a GitHub token",
        ),
        (
            "a.md",
            format!("{}{}", "glpat-", &RANDOM[..20]),
            "a GitLab token",
        ),
        (
            "a.md",
            format!("{}{}", "hf_", "aBcDeFgHi".repeat(4)),
            "a Hugging Face token",
        ),
        (
            "a.md",
            format!("{}{}", "xoxb-", "1234567890-abc"),
            "a Slack token",
        ),
        (
            "a.md",
            format!("{}{}", "AIza", &RANDOM[..35]),
            "a Google key or token",
        ),
        (
            "a.txt",
            format!(
                "{0}hbGciOiJIUzI1NiJ9.{0}zdWIiOiIxIn0.{1}",
                "eyJ",
                &RANDOM[..30]
            ),
            "a JSON web token",
        ),
        (
            "a.txt",
            format!("https://robot:{}@example.org/x", "hunter2"),
            "a password in a URL",
        ),
        (
            "config.json",
            format!("{{\"auths\": {{\"host\": {{\"auth\": \"{auth}\"}}}}}}"),
            "a registry's password as Docker's config has it",
        ),
        ("a.yaml", "db_password: hunter2".into(), named),
        ("a.yaml", "dbPassword: 'hunter2'  # mine".into(), named),
        (".env", "export PGPASSWORD=hunter2".into(), named),
        ("a.json", "{\"api_key\":\"hunter2\"}".into(), named),
        (
            "a.json",
            "\"{\\\"api_key\\\":\\\"hunter2\\\"}\"".into(),
            named,
        ),
        ("a.sh", "curl -H x; ACCESS_KEY=hunter2 run".into(), named),
        ("a.py", "password: str = \"hunter2hunter\"".into(), named),
        (".npmrc", "//host/:_authToken=hunter2".into(), named),
        ("a.yaml", format!("anything: {RANDOM}"), random),
        ("a.py", format!("storage = '{RANDOM}=='"), random),
        ("a.yaml", format!("encryption_key: {hex}"), random),
        ("a.yaml", format!("anything: {}", &hex[..44]), random),
    ];
    for (path, text, what) in cases {
        let text = format!("first\n{text}\nlast: 1\n");
        let found = file(path, &text);
        let expected = finding(&format!("file {path} line 2"), what);
        assert_eq!(found, [expected], "{text}");
    }
}

#[test]
fn what_stands_for_a_secret_and_what_only_looks_like_one_is_not_found() {
    let hex = "3f9c1b7e5d2a4860".repeat(4);
    let literal = format!(
        "if line.startswith(b\"-----{} RSA PRIVATE KEY-----\"):",
        "BEGIN"
    );
    let onnx = base64::engine::general_purpose::STANDARD.encode(
        (0..300_u32)
            .map(|n| ((n * n * 7919) >> 3) as u8)
            .collect::<Vec<_>>(),
    );
    let blob = format!("model: {onnx}");
    let integrity = format!("integrity: sha512-{RANDOM}{RANDOM}==");
    let record = format!("numpy/a.py,sha256={RANDOM}abc,123");
    let arrays = format!("values: [{}]", "0.123456789012345, ".repeat(40));
    let cases = [
        "password: ${PASSWORD}",
        "password: <your password>",
        "password: xxx",
        "password: changeme",
        "password:",
        "password: \"\"",
        "password: /run/secrets/password",
        "password: true",
        "password: null",
        "password_file: hunter2",
        "token: {{ token }}",
        "token: $(get)",
        "token: \"[BOS]\"",
        "eos_token: \"</s>\"",
        "unk_token: 50256",
        "max_tokens: 4096",
        "\"input_token\": \"nextToken\"",
        "\"AWS::MSK::Secret\": \"b68c9a1a87dfd16e\"",
        "passwd:         files",
        "tokenizer: bpe4000",
        "api_key_env: hunter2",
        "api_key: MY_API_KEY",
        "secret: none",
        "secret == hunter22",
        "The password: it is asked for",
        "password=getpass()",
        "https://${USER}:${PASSWORD}@host",
        "http://user:pass@host",
        "https://host/a:b@c",
        "ssh://git@host:22/x",
        "commit: 176bd8e0c4d5a6b7f8e9d0c1b2a3948576fedcba",
        "id: 123e4567-e89b-12d3-a456-426614174000",
        "AKIAIOSFODNN7EXAMPLE",
        "id: CMIP6_ScenarioMIP_EC-Earth3_ssp585_r1i1p1f1_day_gn_20150101",
        "x: ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        "untrusted comment: signature from rsign secret key",
        &format!("image: example.org/x@sha256:{hex}"),
        &format!("sha256: {hex}"),
        &format!("anything: {hex}"),
        &format!("anything: sha256:{hex}"),
        &format!("{hex}  a.onnx"),
        &literal,
        &blob,
        &integrity,
        &record,
        &arrays,
    ];
    for text in cases {
        for path in ["a.yaml", "a.json", "a.py", "Containerfile", "a.md"] {
            assert_eq!(whats(path, text), [""; 0], "{path}: {text}");
        }
    }
    // In a program's source much is called so.
    for text in [
        "password = config.value1",
        "token = \"utf_word\"",
        "secret: Password1",
    ] {
        assert_eq!(whats("a.py", text), [""; 0], "{text}");
        assert_eq!(
            whats("bin/tool", &format!("#!/usr/bin/python3\n{text}")),
            [""; 0]
        );
    }
}

#[test]
fn the_config_is_searched_everywhere_and_each_place_named() {
    let secret = "hunter2";
    let document = json!({
        "author": format!("https://me:{secret}@example.org"),
        "config": {
            "Env": ["PATH=/usr/bin", format!("DB_PASSWORD={secret}"), "EMPTY_TOKEN="],
            "Labels": { "a.b/token": secret, "c": format!("{{\"api_key\": \"{secret}\"}}"), "d": "e" },
            "Entrypoint": ["run", "--password", secret],
            "Cmd": [format!("--token={secret}")],
            "Healthcheck": { "Test": ["CMD-SHELL", format!("PASSWORD={secret} check")] },
            "OnBuild": [format!("ENV SECRET={secret}")],
        },
        "history": [
            { "created_by": "/bin/sh -c #(nop) ADD file:3f9c1b7e5d2a48603f9c1b7e5d2a4860 in / " },
            { "created_by": format!("RUN |1 TOKEN={secret} /bin/sh -c make # buildkit") },
            { "comment": format!("a\npassword: {secret}") },
        ],
    });
    let findings = scan_config(&document);
    let places: Vec<&str> = findings.iter().map(|found| found.place.as_str()).collect();
    let expected = [
        "author",
        "cmd",
        "entrypoint",
        "environment DB_PASSWORD",
        "healthcheck",
        "history 2",
        "history 3",
        "label a.b/token",
        "label c",
        "onbuild",
    ];
    assert_eq!(places, expected);
    assert!(!format!("{findings:?}").contains(secret));
    assert_eq!(scan_config(&json!({})), []);
}

#[test]
fn base_images_have_nothing() {
    let found = environment(&[
        "PATH=/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305",
        "PYTHON_VERSION=3.13.1",
        "PYTHON_SHA256=9cf9427bee9e2242e3877dd0f6b641c1853ca461f39d6503ce260a59c80bf0d9",
        "PYTHON_GET_PIP_SHA256=dfe9fd5c28dc98b5ac17979a953ea550cec37ae1b47a5116007395bfacff2ab9",
        "LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_REQUIRE_CUDA=cuda>=12.4 brand=tesla,driver>=470,driver<471",
        "NV_CUDA_CUDART_VERSION=12.4.127-1",
        "NV_LIBNCCL_PACKAGE=libnccl2=2.21.5-1+cuda12.4",
        "NVIDIA_PRODUCT_NAME=CUDA",
    ]);
    assert_eq!(found, []);
    let history = json!({ "history": [
        { "created_by": "RUN /bin/sh -c set -eux; \tgpg --batch --keyserver hkps://keys.openpgp.org \
            --recv-keys \"$GPG_KEY\"; \techo \"$PYTHON_SHA256 *python.tar.xz\" | sha256sum -c -" },
        { "created_by": "ENV GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305" },
        { "created_by": "# debian.sh --arch 'amd64' out/ 'bookworm' '@1736726400'",
          "comment": "debuerreotype 0.15" },
    ]});
    assert_eq!(scan_config(&history), []);
}

#[test]
fn the_example_has_nothing() {
    fn walk(folder: &Path, searched: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, searched);
                continue;
            }
            let mut opened = std::fs::File::open(&path).unwrap();
            let found = scan_file(&path.display().to_string(), &mut opened).unwrap();
            assert_eq!(found, []);
            *searched += 1;
        }
    }
    let mut searched = 0;
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"),
        &mut searched,
    );
    assert!(searched > 50, "{searched}");
}

#[test]
fn an_artifact_has_nothing() {
    let digest = "9cf9427bee9e2242e3877dd0f6b641c1853ca461f39d6503ce260a59c80bf0d9";
    let text = format!(
        "apiVersion: v1\nname: danra\nmodel:\n  file: model.onnx\n  sha256: {digest}\n\
         checksums:\n  model.onnx: {digest}\n  a/zarr.json: sha256:{digest}\n\
         provenance:\n  checkpoint: {{path: runs/last.ckpt, digest: 'sha256:{digest}'}}\n  \
         commit: 176bd8e0c4d5a6b7f8e9d0c1b2a3948576fedcba\n"
    );
    assert_eq!(file("/artifact.yaml", &text), []);
}

#[test]
fn binary_files_are_passed_and_long_lines_are_not() {
    let secret = format!("{}{}", "ghp_", &RANDOM[..36]);
    assert_eq!(whats("a", &format!("\0{secret}")), [""; 0]);
    let invalid = [b"\xff\xfe".as_slice(), secret.as_bytes()].concat();
    assert_eq!(scan_file("a", &mut invalid.as_slice()).unwrap(), []);
    // A character across the end of the sample is text all the same.
    let cut = format!("{}é\n{secret}", "a".repeat(SAMPLE as usize - 1));
    assert_eq!(file("a", &cut)[0].place, "file a line 2");
    // Wherever the secret lies in a line, it is found once.
    for before in (LINE as usize - 60..LINE as usize + 60).step_by(7) {
        let text = format!("\n{} {secret} {}", "b".repeat(before), "c".repeat(70_000));
        let found = file("a", &text);
        assert_eq!(found.len(), 1, "{before}");
        assert_eq!(found[0].place, "file a line 2");
    }
}

#[test]
fn only_the_beginning_of_an_endless_file_is_read() {
    let mut endless = io::repeat(b'a');
    assert_eq!(scan_file("a", &mut endless).unwrap(), []);
    let secret = format!(" {}{}\n", "ghp_", &RANDOM[..36]);
    let text =
        "line\n".repeat(SEARCHED as usize / 5 - 10) + &secret + &"line\n".repeat(100) + &secret;
    assert_eq!(file("a", &text).len(), 1);
}

#[test]
fn what_packages_install_is_searched_for_tokens_alone() {
    let token = ["ghp_", "Zq3vR8tLm5xW2nB7kD4jF9hG6sA1pC0eYuTi"].concat();
    let text = format!("password: hunter2\nhttps://user:hunter2@host.org/\ntoken {token}\n");
    for path in [
        "/usr/share/a/a.conf",
        "/usr/lib/python3/dist-packages/a/a.conf",
        "/opt/env/lib/python3.11/site-packages/a/a.conf",
    ] {
        let found = file(path, &text);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert_eq!(found[0].place, format!("file {path} line 3"));
    }
    assert_eq!(file("/opt/a.conf", &text).len(), 3);
    assert_eq!(file("/etc/ssl/openssl.cnf", "secret = pass:insta\n"), []);
}

#[test]
fn only_what_is_allowed_passes() {
    let places = [
        "environment A",
        "environment AB",
        "file /a/b line 1",
        "file /a/c line 12",
    ];
    let findings: Vec<Finding> = places.iter().map(|place| finding(place, "x")).collect();
    let pass = |allowed: &[&str]| {
        let allowed = Allowed::new(allowed.iter().map(|&place| place.to_owned()).collect());
        let (refused, passed) = refused(findings.clone(), &allowed);
        assert_eq!(refused.len() + passed.len(), places.len());
        passed
            .into_iter()
            .map(|found| found.place)
            .collect::<Vec<_>>()
    };
    assert_eq!(pass(&[]), [""; 0]);
    assert_eq!(pass(&["environment A"]), places[..1]);
    assert_eq!(pass(&["environment A*"]), places[..2]);
    assert_eq!(pass(&["file /a/*", "environment"]), places[2..]);
    assert_eq!(pass(&["*"]), places);
}

proptest! {
    #[test]
    fn digests_are_never_found(bytes in prop::collection::vec(any::<u8>(), 32), length in 32_usize..=64) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for path in ["a.yaml", "a.py"] {
            let short = &hex[..length];
            let text = format!("sha256: {hex}\n\"sha256\": \"{hex}\"\nMODEL_SHA256={hex}\n\
                digest: sha256:{hex}\nanything: {hex}\nchecksum = '{short}'\n{short}\n");
            prop_assert_eq!(file(path, &text), []);
        }
        prop_assert_eq!(environment(&[&format!("MODEL_SHA256={hex}")]), []);
    }

    #[test]
    fn random_keys_are_found_and_any_text_is_read(
        bytes in prop::collection::vec(any::<u8>(), 36),
        text in "\\PC*",
    ) {
        let key = base64::engine::general_purpose::STANDARD.encode(bytes);
        // What begins as a path does, or has a filler in it, is a key only if it looks drawn at random.
        prop_assume!(!key.starts_with('/') && !key.to_lowercase().contains("xxxx"));
        prop_assert_eq!(environment(&[&format!("DB_PASSWORD={key}")]).len(), 1);
        for kind in [Kind::Config, Kind::Settings, Kind::Source] {
            search(&text, kind);
        }
    }
}
