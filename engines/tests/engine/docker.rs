//! What a container sees and prints, and what is refused, on Docker.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use mlwm_engines::{Engine, Error, Kind, Mount, Output};
use mlwm_spec::configuration::Gpus;
use mlwm_spec::{Digest, ExitCode};

use crate::support::{BASE, docker, docker_cli, run, script};

#[tokio::test]
async fn connects_and_knows_the_engine() {
    let engine = docker().await;
    let info = engine.info();
    assert_eq!(info.kind, Kind::Docker);
    assert_eq!(
        info.version,
        docker_cli(&["version", "--format", "{{.Server.Version}}"])
    );
    assert_eq!(
        info.api_version,
        docker_cli(&["version", "--format", "{{.Server.APIVersion}}"])
    );
    assert!(info.runtimes.contains(&"runc".to_owned()));
    assert!(info.memory_limit);
}

#[tokio::test]
async fn knows_its_images() {
    let engine = docker().await;
    let image = engine.image(BASE).await.unwrap().unwrap();
    let id: Digest = docker_cli(&["image", "inspect", "-f", "{{.Id}}", BASE])
        .parse()
        .unwrap();
    assert_eq!(image.id, id);
    assert_eq!(engine.image(&id.to_string()).await.unwrap().unwrap().id, id);
    assert_eq!(engine.image("mlwm-test-absent:none").await.unwrap(), None);
}

#[tokio::test]
async fn exit_codes_come_through() {
    let engine = docker().await;
    for code in [0, 1, 42, 255] {
        let run = run(&engine, &script(&format!("exit {code}"))).await;
        let ended = run.ended();
        assert_eq!(ended.exit_code, code);
        assert!(!ended.oom_killed && !ended.timed_out && !ended.cancelled && ended.removed);
        // Not compared: the engine stamps both by itself, and a short life can end before it began.
        assert!(ended.started.starts_with("20") && ended.finished.starts_with("20"));
        assert_eq!(ended.succeeded(), code == 0);
    }
    let killed = run(&engine, &script("kill -KILL $BASHPID")).await;
    assert_eq!(killed.ended().exit_code, 137);
    assert!(!killed.ended().oom_killed, "a signal is no want of memory");
}

#[tokio::test]
async fn every_line_comes_in_order() {
    let engine = docker().await;
    let run = run(&engine, &script("echo first; seq 1 100000; echo -n last")).await;
    let mut expected = vec!["first".to_owned()];
    expected.extend((1..=100_000).map(|number| number.to_string()));
    expected.push("last".to_owned());
    assert!(run.stdout() == expected, "{} lines", run.stdout().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_nothing() {
    let engine = docker().await;
    let request = script("for i in {1..300}; do printf '%06d%065530d\\n' $i 0; done");
    let mut numbers = Vec::new();
    let mut print = |line| {
        if let Output::Stdout(text) = line {
            numbers.push(text[..6].parse::<u32>().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    engine
        .run(&request, &mut print, &Default::default())
        .await
        .unwrap();
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_long_lines_and_bytes_stay_apart() {
    let engine = docker().await;
    let text =
        r"echo out; echo err >&2; printf 'a\xff\xfeb\n'; head -c 300000 /dev/zero | tr '\0' x";
    let run = run(&engine, &script(text)).await;
    assert_eq!(
        run.lines
            .iter()
            .filter(|line| matches!(line, Output::Stderr(_)))
            .collect::<Vec<_>>(),
        [&Output::Stderr("err".into())]
    );
    let out = run.stdout();
    assert_eq!(out[..2], ["out", "a\u{fffd}\u{fffd}b"]);
    assert!(out[2..].iter().all(|piece| piece.len() <= 64 * 1024));
    assert_eq!(out[2..].concat(), "x".repeat(300_000));
}

#[tokio::test]
async fn a_container_is_isolated() {
    let engine = docker().await;
    let script = script(
        "id -u; id -g; grep -E 'CapEff|CapPrm|CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t'
        ls /sys/class/net; touch /x 2>&1; touch /var/tmp/x 2>&1
        echo hi > $HOME/file && cat /tmp/file; mkdir -p $XDG_CACHE_HOME/a && echo cache
        cp /bin/true /tmp/true && /tmp/true && echo runs; stat -c %a /tmp
        cat /proc/1/comm; python3 --version 2>/dev/null; (exec 3<>/dev/tcp/1.1.1.1/53) 2>&1 | tail -1",
    );
    let run = run(&engine, &script).await;
    let none = "0000000000000000";
    let expected = [
        "65534".to_owned(),
        "65534".to_owned(),
        format!("CapPrm:{none}"),
        format!("CapEff:{none}"),
        format!("CapBnd:{none}"),
        "NoNewPrivs:1".to_owned(),
        "lo".to_owned(),
        "touch: cannot touch '/x': Read-only file system".to_owned(),
        "touch: cannot touch '/var/tmp/x': Read-only file system".to_owned(),
        "hi".to_owned(),
        "cache".to_owned(),
        "runs".to_owned(),
        "1777".to_owned(),
        "docker-init".to_owned(),
    ];
    let out = run.stdout();
    assert_eq!(out[..expected.len()], expected);
    assert!(
        out[expected.len()].contains("Network is unreachable"),
        "{out:?}"
    );
}

#[tokio::test]
async fn root_in_a_container_has_no_powers() {
    let engine = docker().await;
    let mut request = script(
        "grep CapEff /proc/self/status; mount -t tmpfs none /mnt 2>&1 | grep -c denied
        cat /proc/sys/kernel/hostname > /dev/null; chown 1:1 /tmp 2>&1 | grep -c permitted",
    );
    request.user = (0, 0);
    let run = run(&engine, &request).await;
    assert_eq!(run.stdout(), ["CapEff:\t0000000000000000", "1", "1"]);
}

#[tokio::test]
async fn the_environment_is_the_requests_alone() {
    let engine = docker().await;
    let mut request = script("env -0 | sort -z | tr '\\0' '|'");
    request.env = BTreeMap::from([
        ("MLWM_MEMBER".into(), "3".into()),
        ("TEXT".into(), "a=b 'c'\nd".into()),
        ("HOME".into(), "/tmp/elsewhere".into()),
    ]);
    let run = run(&engine, &request).await;
    let text = run.stdout().join("\n");
    let names: Vec<&str> = text
        .split('|')
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .collect();
    // PWD, SHLVL and _ are bash's own; HOSTNAME and PATH are Docker's.
    assert_eq!(
        names,
        [
            "HOME",
            "HOSTNAME",
            "LOGNAME",
            "MLWM_MEMBER",
            "PATH",
            "PWD",
            "SHLVL",
            "TEXT",
            "TMPDIR",
            "USER",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "_"
        ]
    );
    assert!(text.contains("TEXT=a=b 'c'\nd|"), "{text}");
    assert!(text.contains("HOME=/tmp/elsewhere|"), "{text}");
}

#[tokio::test]
async fn mounts_of_any_name_are_seen() {
    let engine = docker().await;
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("dx2p5:km, \"member\" 0");
    let output = dir.path().join("out");
    for path in [&input, &output] {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    std::fs::write(input.join("data"), "winds").unwrap();
    let mut request = script("cat /in/data && echo >/in/x; cp /in/data /volume/outputs/data");
    request.mounts = vec![
        Mount {
            source: input,
            target: "/in".into(),
            read_only: true,
        },
        Mount {
            source: output.clone(),
            target: "/volume/outputs".into(),
            read_only: false,
        },
    ];
    let run = run(&engine, &request).await;
    assert_eq!(run.ended().exit_code, 0, "{:?}", run.lines);
    assert!(
        run.lines
            .iter()
            .any(|line| matches!(line, Output::Stderr(text) if text.contains("Read-only"))),
        "{:?}",
        run.lines
    );
    assert_eq!(
        std::fs::read_to_string(output.join("data")).unwrap(),
        "winds"
    );
}

#[tokio::test]
async fn refusals_name_what_is_missing() {
    let engine = docker().await;

    let mut request = script("true");
    request.image = "mlwm-test-absent:none".into();
    let run_absent = run(&engine, &request).await;
    assert_eq!(run_absent.error().exit_code(), ExitCode::ImageMissing);
    assert!(
        run_absent
            .error()
            .to_string()
            .contains("docker pull mlwm-test-absent:none")
    );

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("absent");
    let mut request = script("true");
    let mount = Mount {
        source: source.clone(),
        target: "/in".into(),
        read_only: true,
    };
    request.mounts = vec![mount];
    let run_unmounted = run(&engine, &request).await;
    assert!(
        matches!(run_unmounted.error(), Error::MountSource { .. }),
        "{}",
        run_unmounted.error()
    );
    assert!(!source.exists(), "the engine made the missing source");

    let mut request = script("true");
    request.resources.gpus = Some(Gpus::One("all".into()));
    let run_gpus = run(&engine, &request).await;
    assert!(
        matches!(run_gpus.error(), Error::Gpus { .. }),
        "{}",
        run_gpus.error()
    );
    assert!(
        run_gpus.error().to_string().contains("nvidia-ctk"),
        "{}",
        run_gpus.error()
    );

    let mut request = script("true");
    request.resources.cpus = Some(4096.0);
    let run_cpus = run(&engine, &request).await;
    assert_eq!(
        run_cpus.error().exit_code(),
        ExitCode::BadConfiguration,
        "{}",
        run_cpus.error()
    );
}

#[tokio::test]
async fn a_command_that_is_not_there_leaves_no_container() {
    let engine = docker().await;
    let mut request = script("");
    request.command = Some(vec!["/no/such/program".into()]);
    let run = run(&engine, &request).await;
    // With an init the container starts, and the init reports the missing program.
    match &run.result {
        Ok(ended) => assert_eq!(ended.exit_code, 127, "{:?}", run.lines),
        Err(error) => assert!(matches!(error, Error::Start { .. }), "{error}"),
    }
}

#[tokio::test]
async fn no_value_of_the_environment_is_shown() {
    let engine = docker().await;
    let secret = "hunter2-correct-horse";
    let mut request = script("true");
    request.env.insert("TOKEN".into(), secret.into());
    assert!(!format!("{request:?}").contains(secret));
    assert!(format!("{request:?}").contains("TOKEN"));

    request.env.insert("=BAD".into(), secret.into());
    let run_bad = run(&engine, &request).await;
    assert!(matches!(run_bad.error(), Error::Request { .. }));
    assert!(!format!("{} {:?}", run_bad.error(), run_bad.error()).contains(secret));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let binary = std::env::current_exe().unwrap();
    let output = std::process::Command::new(binary)
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "docker::connect_by_environment",
        ])
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("DOCKER_HOST=/nonexistent/engine.sock: no such socket"),
        "{text} {}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(text.contains("exit code 15"), "{text}");
}

/// Run by [`an_engine_that_is_not_there_is_named`] in a process with an environment of its own.
#[tokio::test]
#[ignore = "needs an environment of its own"]
async fn connect_by_environment() {
    let error = Engine::connect().await.unwrap_err();
    eprintln!("{error} exit code {}", error.exit_code().number());
}
