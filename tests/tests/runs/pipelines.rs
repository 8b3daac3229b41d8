//! Configurations with steps: each a container, over months, files and members, one after the other.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mlwm_tests::scripted::{image, no_container_left};
use mlwm_tests::site::{Ran, Site};

const TIME: &str = "2023-01-01T00:00Z";

/// An image that runs the text that it is given as a command of the shell, and what follows as its arguments.
static SHELL: LazyLock<String> = LazyLock::new(|| image("pipelines", "eval \"$0\""));

fn site(pipeline: &str) -> Site {
    let site = Site::new();
    configure(&site, pipeline);
    site
}

fn configure(site: &Site, pipeline: &str) {
    let yaml = format!(
        "docker_image: {}\nretries: {{infrastructure: 0}}\n{pipeline}",
        *SHELL
    );
    site.configure("land", &yaml);
}

fn run(site: &Site) -> Ran {
    site.mlwm(&["run", "--analysis-time", TIME, "--model", "land"])
}

/// Months of text, all of them in one, and a word about each.
const MONTHS: &str = r#"
steps:
  - name: all
    command: ['for month in "$@"; do cat $month/month; done > {outputs.text}/all', '{inputs.months}']
    inputs: {months: {from: month, internal_path: /in/months}}
    outputs: {text: {uri: ./out/all, internal_path: /out/all, format: files, replace: true}}
  - name: month
    foreach: month in 2020-01..2020-03
    command: ['echo {month:%Y%m} > {outputs.text}/month']
    outputs: {text: {uri: './out/{month}', internal_path: /out/text, format: files}}
  - name: word
    foreach: month in 2020-02..2020-03
    command: ['wc --chars < {inputs.month}/month > {outputs.words}/words']
    inputs: {month: {from: month.text, internal_path: /in/month}}
    outputs: {words: {uri: './out/words/{month}', internal_path: /out/words, format: files}}
"#;

fn text(site: &Site, path: &str) -> String {
    fs::read_to_string(site.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn steps_run_behind_those_that_they_read_from_and_once() {
    let site = site(MONTHS);
    run(&site).expect(0, &["land/month/2020-03", "land/word/2020-02", "land/all"]);
    assert_eq!(text(&site, "out/all/all"), "202001\n202002\n202003\n");
    assert_eq!(text(&site, "out/words/2020-02/words").trim(), "7");
    assert!(!site.path("out/words/2020-01").exists());
    let before = site.files("out");
    assert!(
        before.iter().any(|file| file == "all.manifest.json"),
        "{before:?}"
    );

    let again = run(&site).expect(0, &[]);
    assert_eq!(
        again.stdout.matches("already published").count(),
        6,
        "{}",
        again.stdout
    );
    assert_eq!(site.files("out"), before);
    assert_eq!(site.files("mlwm-work/tasks"), Vec::<String>::new());
    no_container_left(&site);
}

#[test]
fn a_step_can_be_run_alone_and_what_it_lacks_is_said() {
    let site = site(MONTHS);
    let run = |step: &str| site.mlwm(&["run", "--analysis-time", TIME, "--model", step]);
    run("land/month/2020-02").expect(0, &[]);
    assert!(site.path("out/2020-02/month").is_file());
    assert!(!site.path("out/2020-01").exists());
    run("land/word/2020-02").expect(0, &[]);
    run("land/all").expect(11, &["out/2020-01"]);
    run("land/words").expect(10, &["no step `words`", "month", "all"]);
    run("land/month/2021-01").expect(10, &["2021-01"]);
}

#[test]
fn a_month_that_is_added_is_made_and_all_is_made_again() {
    let site = site(MONTHS);
    run(&site).expect(0, &[]);
    configure(
        &site,
        &MONTHS.replace("2020-01..2020-03", "2020-01..2020-04"),
    );
    let second = run(&site).expect(0, &[]);
    assert_eq!(
        second.stdout.matches("already published").count(),
        5,
        "{}",
        second.stdout
    );
    assert_eq!(
        text(&site, "out/all/all"),
        "202001\n202002\n202003\n202004\n"
    );

    // The same in one go.
    let other = self::site(&MONTHS.replace("2020-01..2020-03", "2020-01..2020-04"));
    run(&other).expect(0, &[]);
    assert_eq!(text(&other, "out/all/all"), text(&site, "out/all/all"));

    // What does not give way is not overwritten.
    configure(
        &site,
        &MONTHS
            .replace("2020-01..2020-03", "2020-01..2020-05")
            .replace(", replace: true", ""),
    );
    run(&site).expect(31, &["out/all", "land/all"]);
    assert_eq!(
        text(&site, "out/all/all"),
        "202001\n202002\n202003\n202004\n"
    );
}

#[test]
fn what_follows_a_failure_is_not_begun_and_the_rest_is() {
    let pipeline = r#"
steps:
  - name: each
    foreach: file in ./in/*.txt
    command: ['test -s {inputs.file}/{file} && cp {inputs.file}/{file} {outputs.copy}/{file.stem}']
    inputs: {file: {uri: ./in, internal_path: /in}}
    outputs: {copy: {uri: './out/{file.stem}', internal_path: /out, format: files}}
  - name: all
    command: ['for copy in "$@"; do cat $copy/*; done > {outputs.all}/all', '{inputs.copies}']
    inputs: {copies: {from: each, internal_path: /in/copies}}
    outputs: {all: {uri: ./out/all, internal_path: /out/all, format: files}}
  - name: last
    command: ['cp {inputs.all}/all {outputs.last}/last']
    inputs: {all: {from: all, internal_path: /in/all}}
    outputs: {last: {uri: ./out/last, internal_path: /out/last, format: files}}
"#;
    let site = site(pipeline);
    run(&site).expect(10, &["no file is named like `./in/*.txt`"]);
    fs::create_dir(site.path("in")).unwrap();
    for (name, text) in [("a.txt", "a\n"), ("b.txt", ""), ("c.md", "c\n")] {
        fs::write(site.path("in").join(name), text).unwrap();
    }
    let failed = run(&site).expect(
        20,
        &["land/each/b.txt 2023-01-01T00:00Z member 0 failed, which makes what it reads"],
    );
    assert!(!failed.stdout.contains("c.md"), "{}", failed.stdout);
    assert_eq!(text(&site, "out/a/a"), "a\n");
    assert!(!site.path("out/all").exists() && !site.path("out/last").exists());
}

#[test]
fn members_of_a_step_are_read_together_by_the_next() {
    let pipeline = r#"
steps:
  - name: run
    members: 0-3
    seed: 100
    command: ['echo {member} $MLWM_SEED > {outputs.a}/a']
    outputs: {a: {uri: './out/m{member:02}', internal_path: /out, format: files}}
  - name: mean
    command: ['for member in "$@"; do cat $member/a; done > {outputs.mean}/mean', '{inputs.members}']
    inputs: {members: {from: run, internal_path: /in}}
    outputs: {mean: {uri: ./out/mean, internal_path: /out, format: files}}
"#;
    let site = site(pipeline);
    run(&site).expect(0, &[]);
    assert_eq!(text(&site, "out/mean/mean"), "0 100\n1 101\n2 102\n3 103\n");
}

#[test]
fn configurations_that_read_what_others_publish_run_behind_them() {
    let site = Site::new();
    let one = |command: &str, input: &str, output: &str| {
        format!(
            "docker_image: {}\ncommand: ['{command}']\ninputs: {{{input}}}\noutputs: {{a: {{uri: './out/{output}', internal_path: /out/a, format: files}}}}\n",
            *SHELL
        )
    };
    // By name, the reader would be first.
    site.configure(
        "a_reader",
        &one(
            "cat /in/a > /out/a/b",
            "a: {uri: ./out/made/a, internal_path: /in/a}",
            "read",
        ),
    );
    site.configure("b_maker", &one("sleep 1; echo made > /out/a/a", "", "made"));
    site.mlwm(&["run", "--analysis-time", TIME]).expect(0, &[]);
    assert_eq!(text(&site, "out/read/b"), "made\n");
    let graph = site.mlwm(&["plan", "--analysis-time", TIME, "--graph"]);
    graph.expect(
        0,
        &[
            "flowchart LR",
            "n0[\"b_maker\"]",
            "n1[\"a_reader\"]",
            "n0 --> n1",
        ],
    );
}

#[test]
fn a_plan_is_drawn() {
    let site = site(MONTHS);
    let drawn = |form: &str| site.mlwm(&["plan", "--analysis-time", TIME, form]);
    let mermaid = drawn("--graph").expect(
        0,
        &[
            "flowchart LR",
            "land/month<br/>2020-01 … 2020-03<br/>3 tasks",
        ],
    );
    assert_eq!(
        mermaid.stdout.matches("-->").count(),
        2,
        "{}",
        mermaid.stdout
    );
    let dot = drawn("--graph=dot").expect(0, &["digraph plan {", "rankdir=LR"]);
    assert_eq!(dot.stdout.matches("->").count(), 2, "{}", dot.stdout);
}

#[test]
fn credentials_reach_the_container_and_nothing_else() {
    let pipeline = r#"
steps:
  - name: fetch
    network: true
    credentials: [STORE_KEY]
    command: ['echo the key is $STORE_KEY; ls /sys/class/net > {outputs.a}/networks; echo ${#STORE_KEY} > {outputs.a}/length']
    outputs: {a: {uri: ./out/a, internal_path: /out, format: files}}
  - name: alone
    command: ['ls /sys/class/net > {outputs.b}/networks']
    outputs: {b: {uri: ./out/b, internal_path: /out, format: files}}
"#;
    let mut site = site(pipeline);
    run(&site).expect(10, &["STORE_KEY"]);
    site.env("STORE_KEY", "very-secret-1234");
    let ran = run(&site).expect(0, &[]);
    assert_eq!(text(&site, "out/a/length"), "16\n");
    assert!(text(&site, "out/a/networks").contains("eth0"));
    assert!(!text(&site, "out/b/networks").contains("eth0"));
    let log = site
        .files("mlwm-work/log")
        .into_iter()
        .find(|file| file.contains("fetch"));
    let log = text(&site, &format!("mlwm-work/log/{}", log.unwrap()));
    assert_eq!(log, "the key is [credential]\n");
    let secret = b"very-secret-1234";
    for folder in ["out", "mlwm-work"] {
        for file in site.files(folder) {
            let bytes = fs::read(site.path(folder).join(&file)).unwrap();
            assert!(
                !bytes.windows(secret.len()).any(|part| part == secret),
                "{folder}/{file}"
            );
        }
    }
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("very-secret"));
}

#[test]
fn killed_anywhere_the_same_command_goes_on() {
    let slow = MONTHS.replace("echo {month", "sleep 0.3; echo {month");
    let whole = site(&slow);
    run(&whole).expect(0, &[]);
    let killed = site(&slow);
    for after in [300, 900, 1500, 2100] {
        let mut child = killed
            .command(&["run", "--analysis-time", TIME, "--model", "land"])
            .spawn()
            .unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(after) && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    run(&killed).expect(0, &[]);
    let files = |site: &Site| {
        // They have the place and the times of the run in them.
        let data = |file: &String| !file.contains("manifest");
        let files = site.files("out").into_iter().filter(data);
        files
            .map(|file| (text(site, &format!("out/{file}")), file))
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&killed), files(&whole));
    assert_eq!(killed.files("mlwm-work/tasks"), Vec::<String>::new());
    no_container_left(&killed);
}

#[test]
fn what_is_wrong_with_steps_is_said_with_its_line() {
    let site = site(MONTHS);
    site.mlwm(&["check"])
        .expect(0, &["land: ok, 6 parts: runs mlwm-test/pipelines:latest"]);
    for (from, to, texts) in [
        (
            "from: month,",
            "from: mont,",
            &["line 7", "no step `mont`"][..],
        ),
        (
            "month in 2020-01..2020-03",
            "month in 2020-01..2020-13",
            &["line 10", "month in 2020-02..2022-12"],
        ),
        (
            "'./out/{month}'",
            "./out/month",
            &["steps.1.outputs.text", "add {month}"],
        ),
        (
            "'./out/{month}'",
            "'./out/{mouth}'",
            &["`{mouth}` is not a known placeholder"],
        ),
        (
            "{inputs.month}/month >",
            "{inputs.mouth}/month >",
            &["no input `mouth`"],
        ),
        (
            "name: word",
            "name: month",
            &["`month` cannot be the name of a step"],
        ),
        (
            "steps:",
            "inputs: {}\nmembers: 0-3\nsteps:",
            &["`members`", "move it into a step"],
        ),
        (
            "name: word",
            "name: word\n    steps: [{name: a}]",
            &["a step has no steps"],
        ),
        (
            "foreach: month in 2020-02",
            "forech: month in 2020-02",
            &["foreach"],
        ),
    ] {
        let broken = MONTHS.replace(from, to);
        assert_ne!(broken, MONTHS, "{from}");
        configure(&site, &broken);
        site.mlwm(&["check"]).expect(10, texts);
    }
}

/// The source of each month, which two steps read and which is kept until then.
const KEPT: &str = r#"
steps:
  - name: raw
    foreach: month in 2020-01..2020-02
    command: ['echo {month:%Y%m} > {outputs.text}/month; echo more > {outputs.text}/more']
    outputs: {text: {uri: './out/raw/{month}', internal_path: /out/text, format: files, keep: until_read}}
  - name: month
    foreach: month in 2020-01..2020-02
    command: ['cat {inputs.raw}/month > {outputs.text}/month']
    inputs: {raw: {from: raw, internal_path: /in/raw}}
    outputs: {text: {uri: './out/month/{month}', internal_path: /out/text, format: files}}
  - name: first
    command: ['cat {inputs.raw}/month > {outputs.text}/first']
    inputs: {raw: {uri: ./out/raw/2020-01, internal_path: /in/raw}}
    outputs: {text: {uri: ./out/first, internal_path: /out/text, format: files, replace: true}}
"#;

fn manifest(site: &Site, path: &str) -> serde_json::Value {
    serde_json::from_str(&text(site, &format!("{path}.manifest.json"))).unwrap()
}

fn raw(site: &Site, month: &str) -> Vec<String> {
    site.files(&format!("out/raw/{month}"))
}

#[test]
fn sources_are_kept_until_all_that_read_them_have_published_and_no_longer() {
    let site = site(KEPT);
    // One of the readers is not asked for: it may come later.
    for steps in [["land/raw", "land/month"], ["land/raw", "land/first"]] {
        let models = steps.iter().flat_map(|step| ["--model", step]);
        let mut arguments = vec!["run", "--analysis-time", TIME];
        arguments.extend(models);
        site.mlwm(&arguments).expect(0, &[]);
        assert_eq!(raw(&site, "2020-01"), ["month", "more"]);
    }
    // What nobody else reads goes as soon as it is read.
    assert_eq!(raw(&site, "2020-02"), [""; 0]);
    run(&site).expect(0, &["land/raw/2020-01", "have been read, and are removed"]);
    assert_eq!(raw(&site, "2020-01"), [""; 0]);
    let removed = &manifest(&site, "out/raw/2020-01")["removed"];
    let readers = removed["read_by"].as_array().unwrap().iter();
    let readers: Vec<&str> = readers.flat_map(|reader| reader["name"].as_str()).collect();
    assert_eq!(
        readers,
        [
            "land/month/2020-01 2023-01-01T00:00Z member 0",
            "land/first 2023-01-01T00:00Z member 0"
        ]
    );
    site.mlwm(&["verify", "out/raw/2020-01"])
        .expect(11, &["was removed", "--model land/raw/2020-01"]);

    // Nothing is made again, and of what is added no more than is new.
    let before = site.files("out");
    let again = run(&site).expect(0, &[]);
    assert_eq!(again.stdout.matches("already published").count(), 5);
    assert_eq!(site.files("out"), before);
    configure(&site, &KEPT.replace("..2020-02", "..2020-03"));
    let more = run(&site).expect(0, &[]);
    assert_eq!(more.stdout.matches("already published").count(), 5);
    assert_eq!(text(&site, "out/month/2020-03/month"), "202003\n");
    assert_eq!(raw(&site, "2020-03"), [""; 0]);

    // One that was killed when it had said so, and not yet done it.
    fs::create_dir_all(site.path("out/raw/2020-03")).unwrap();
    fs::write(site.path("out/raw/2020-03/month"), "202003\n").unwrap();
    run(&site).expect(0, &["have been read, and are removed"]);
    assert_eq!(raw(&site, "2020-03"), [""; 0]);
    no_container_left(&site);
}

#[test]
fn sources_stay_while_what_was_made_of_them_is_not_whole() {
    let failing = KEPT.replace("cat {inputs.raw}/month > {outputs.text}/first", "exit 3");
    let site = site(&failing);
    run(&site).expect(20, &["land/first"]);
    assert_eq!(raw(&site, "2020-01"), ["month", "more"]);
    // As long as before, and something else.
    fs::write(site.path("out/month/2020-01/month"), "202999\n").unwrap();
    configure(&site, KEPT);
    run(&site).expect(
        0,
        &[
            "out/raw/2020-01 is not removed",
            "`month` has other content",
        ],
    );
    assert_eq!(raw(&site, "2020-01"), ["month", "more"]);
    fs::write(site.path("out/month/2020-01/month"), "202001\n").unwrap();
    run(&site).expect(0, &["are removed"]);

    // Another reader comes too late, and is told what to do.
    let other = KEPT.replace(
        "/month > {outputs.text}/first",
        "/more > {outputs.text}/first",
    );
    configure(&site, &other);
    let rerun = "mlwm run --republish --analysis-time 2023-01-01T00:00Z --model land/raw/2020-01";
    run(&site).expect(11, &["was removed", rerun]);
    assert_eq!(text(&site, "out/first/first"), "202001\n");
    let arguments = ["run", "--analysis-time", TIME, "--republish", "--model"];
    site.mlwm(&[&arguments[..], &["land/raw/2020-01"]].concat())
        .expect(0, &[]);
    assert_eq!(raw(&site, "2020-01"), ["month", "more"]);
    run(&site).expect(0, &["are removed"]);
    assert_eq!(text(&site, "out/first/first"), "more\n");
}

#[test]
fn what_is_left_of_a_source_is_not_taken_for_all_of_it() {
    let site = site(KEPT);
    run(&site).expect(0, &["are removed"]);
    // One was killed while it removed; and a reader has changed since.
    fs::create_dir_all(site.path("out/raw/2020-01")).unwrap();
    fs::write(site.path("out/raw/2020-01/month"), "202001\n").unwrap();
    let first = "cat {inputs.raw}/month > {outputs.text}/first";
    configure(
        &site,
        &KEPT.replace(first, &format!("{first}; echo >> {{outputs.text}}/first")),
    );
    run(&site).expect(11, &["was removed", "mlwm run --republish --analysis-time"]);
    assert_eq!(text(&site, "out/first/first"), "202001\n");
}

#[test]
fn a_reader_counts_however_it_names_the_place_and_in_whichever_configuration() {
    let here = Site::new();
    let whole = format!("file://{}", here.path("out/raw/2020-01").display());
    configure(
        &here,
        &KEPT.replace("uri: ./out/raw/2020-01,", &format!("uri: '{whole}',")),
    );
    let part = [
        "run",
        "--analysis-time",
        TIME,
        "--model",
        "land/raw",
        "--model",
        "land/month",
    ];
    here.mlwm(&part).expect(0, &[]);
    assert_eq!(raw(&here, "2020-01"), ["month", "more"]);

    let other = format!(
        "docker_image: {}\ncommand: ['exit 3']\ninputs: {{raw: {{uri: {whole}, internal_path: /in/raw}}}}\n\
         outputs: {{text: {{uri: ./out/other, internal_path: /out/text, format: files}}}}\n",
        *SHELL
    );
    here.configure("other", &other);
    let both = [
        "run",
        "--analysis-time",
        TIME,
        "--model",
        "land",
        "--model",
        "other",
    ];
    here.mlwm(&both).expect(20, &[]);
    assert_eq!(raw(&here, "2020-01"), ["month", "more"]);
    here.configure(
        "other",
        &other.replace("exit 3", "cp {inputs.raw}/month {outputs.text}"),
    );
    here.mlwm(&both).expect(0, &["are removed"]);
    assert_eq!(raw(&here, "2020-01"), [""; 0]);

    configure(
        &here,
        &KEPT.replace("uri: ./out/raw/2020-01,", "uri: ./out/raw/2020-01/month,"),
    );
    run(&here).expect(10, &["land/first", "reads a part of", "out/raw/2020-01"]);
}

#[test]
fn what_is_read_by_no_step_is_not_kept_until_then() {
    let site = site(&MONTHS.replace(
        "internal_path: /out/all,",
        "internal_path: /out/all, keep: until_read,",
    ));
    run(&site).expect(
        10,
        &[
            "steps.0.outputs.text.keep",
            "no step has an input `from` this output",
        ],
    );
    assert!(!site.path("out").exists());
}
