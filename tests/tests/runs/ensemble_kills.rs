//! An ensemble is stopped in the middle of a member, from inside and outside: that member is made again, and nothing
//! that was done is done again.

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mlwm_spec::Manifest;
use mlwm_spec::manifest::MANIFEST_SUFFIX;
use mlwm_tests::bench::{
    Bench, Reader, SERVER, attempts, begun, brought, logs, put, sent, tasks, wait_until,
};
use mlwm_tests::counting_proxy::CountingProxy;
use mlwm_tests::faulty::{Fault, Faulty};
use mlwm_tests::scripted::{WAITS, ended, no_container_left, windowed_with};
use mlwm_tests::site::{oracle, ran};
use mlwm_tests::witness::{container_of, containers_of};
use serde_json::Value;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];

/// A bench with four members, whose model stands still in the middle of the second one that it serves.
fn bench(name: &str, more: &str) -> Bench {
    let before = format!("if [ $work = 0001 ] && [ $window = h024-048 ]; then {WAITS}; fi");
    Bench::of(name, 4, &windowed_with("waits-in-a-member", &before), more)
}

/// A run that stands still there, when the first member is published; which that is, and which it stands still at.
fn run_into_the_second(bench: &Bench, proxy: &CountingProxy) -> (Child, usize, usize) {
    let run = bench.command(&RUN, &proxy.endpoint).spawn().unwrap();
    let site = &bench.site;
    let waits = || (0..4).find(|member| logs(site, *member).contains("waits"));
    wait_until("the model waits in a member", || waits().is_some());
    let is_published = |task: &Value| task["state"] == "published";
    wait_until("the one before it is published", || {
        tasks(site).iter().any(is_published)
    });
    let first = tasks(site).iter().position(is_published).unwrap();
    let second = waits().unwrap() as usize;
    let wanted = |member| usize::from([first, second].contains(&member));
    assert_eq!(begun(site, 4), [0, 1, 2, 3].map(wanted));
    (run, first, second)
}

/// One for each member, but two for this.
fn twice(member: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|other| 1 + usize::from(other == member))
}

fn docker_kill(id: &str) {
    let killed = Command::new("docker").args(["kill", id]).output().unwrap();
    ran(&killed).expect(0, &[]);
}

/// I5: the others of its members are neither brought nor inferred again.
#[test]
fn a_container_that_is_killed_costs_the_member_that_it_was_at() {
    let bench = bench("container", "retries: {model: 1, delay: PT1S}\n");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (run, _, second) = run_into_the_second(&bench, &proxy);
    docker_kill(&container_of(&bench.site));
    ended(&bench.site, run).expect(0, &["exit code 137"]);
    bench.all_is_published("out");
    assert_eq!(begun(&bench.site, 4), twice(second));
    let attempts = attempts(&bench.site);
    let counts: Vec<usize> = attempts.iter().map(Vec::len).collect();
    assert_eq!(counts, twice(second));
    assert_eq!(attempts[second][0]["exit_code"], 20);
    assert_eq!(attempts[second][1]["state"], "published");
    assert_eq!(brought(&proxy, 4), twice(second));
    bench.nothing_is_left();
}

/// Stops a run in the middle of its second member: the same command then makes that one again, and those that were
/// not begun.
fn goes_on(name: &str, stop: impl FnOnce(&Bench, Child)) {
    let bench = bench(name, "retries: 0\n");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (run, first, second) = run_into_the_second(&bench, &proxy);
    stop(&bench, run);
    proxy.reset();
    let again = bench.command(&RUN, &proxy.endpoint).spawn().unwrap();
    ended(&bench.site, again).expect(0, &["published"]);
    bench.all_is_published("out");
    assert_eq!(begun(&bench.site, 4), twice(second));
    for member in 0..4 {
        let is_done = member == first;
        assert_eq!(
            brought(&proxy, 4)[member],
            usize::from(!is_done),
            "{member}"
        );
        let sends = sent(&proxy, member as u64);
        assert_eq!(sends == 0, is_done, "{member}");
    }
    assert_eq!(attempts(&bench.site)[first].len(), 1);
    bench.nothing_is_left();
}

#[test]
fn killed_with_its_container_it_goes_on_with_the_member_that_was_under_way() {
    goes_on("both", |bench, mut run| {
        let container = container_of(&bench.site);
        run.kill().unwrap();
        // A run of another test may remove what is a dead run's first.
        let _ = Command::new("docker").args(["kill", &container]).output();
        run.wait().unwrap();
    });
}

/// The container that it left is removed, and not asked for what it has made meanwhile.
#[test]
fn killed_without_its_container_it_goes_on_with_the_member_that_was_under_way() {
    goes_on("alone", |bench, mut run| {
        let left = container_of(&bench.site);
        run.kill().unwrap();
        run.wait().unwrap();
        // Unless a run of another test came to remove it, as runs do with what a dead one left.
        assert!(containers_of(&bench.site).iter().all(|id| *id == left));
    });
}

/// I17.
#[test]
fn told_to_stop_it_stops_its_container_and_goes_on_later() {
    goes_on("told", |bench, run| {
        let id = run.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status();
        assert!(told.unwrap().success());
        ran(&run.wait_with_output().unwrap()).expect(130, &["interrupted"]);
        assert_eq!(containers_of(&bench.site), [""; 0]);
        assert_eq!(bench.site.files("mlwm-work/warm"), [""; 0]);
        let attempts = attempts(&bench.site);
        let states = attempts.iter().flatten().map(|attempt| &attempt["state"]);
        let stopped = states.filter(|state| *state == "interrupted").count();
        // That which it was at, and those that were staged.
        assert!(stopped >= 1, "{attempts:?}");
    });
}

/// I14: in one working folder, whoever comes to a member first makes it.
#[test]
fn of_two_runs_at_once_each_member_is_made_by_one() {
    let bench = Bench::of(
        "two-runs",
        4,
        &windowed_with("takes-its-time", "sleep 0.2"),
        "retries: 0\n",
    );
    let start = |()| bench.command(&RUN, &SERVER.endpoint).spawn().unwrap();
    let runs = [(); 2].map(start);
    let runs = runs.map(|run| ran(&run.wait_with_output().unwrap()).expect(0, &["published"]));
    let passed_over = runs.map(|run| run.stdout.matches("already published").count());
    assert_eq!(passed_over.iter().sum::<usize>(), 4, "{passed_over:?}");
    assert_eq!(begun(&bench.site, 4), [1; 4]);
    assert!(attempts(&bench.site).iter().all(|all| all.len() == 1));
    bench.all_is_published("out");
    bench.nothing_is_left();
}

/// I14: of two working folders none knows the claims of the other. Whoever came to a member last publishes it, and no
/// reader sees what the other had sent.
#[test]
fn from_two_working_folders_at_once_each_member_is_published_by_one() {
    let image = windowed_with("takes-its-time", "sleep 0.2");
    let bench = Bench::of("two-folders", 3, &image, "retries: 0\n");
    let reader = Reader::of(&bench, "out");
    let folders = ["one", "other"];
    let run = |folder| {
        let mut run = bench.command(&RUN, &SERVER.endpoint);
        run.env("MLWM_WORKDIR", folder).spawn().unwrap()
    };
    for run in folders.map(run) {
        let run = ran(&run.wait_with_output().unwrap());
        // It lost some member to the other.
        assert!([0, 31].contains(&run.code), "{}{}", run.stdout, run.stderr);
    }
    assert_eq!(reader.saw_only_what_is_whole().1, 3);
    bench.all_is_published("out");
    for folder in folders {
        let again = ran(&run(folder).wait_with_output().unwrap()).expect(0, &[]);
        assert_eq!(again.stdout.matches("already published").count(), 3);
        for left in ["tasks", "warm"] {
            assert_eq!(bench.site.files(&format!("{folder}/{left}")), [""; 0]);
        }
    }
    no_container_left(&bench.site);
}

/// I14: of two runs one waits, which goes on when the other is killed in the middle of a member.
#[test]
fn a_run_that_waits_takes_over_from_one_that_is_killed() {
    let bench = bench("takes-over", "retries: 0\n");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (mut run, _, second) = run_into_the_second(&bench, &proxy);
    let said = bench.site.path("said");
    let mut other = bench.command(&RUN, &SERVER.endpoint);
    let other = other.stderr(fs::File::create(&said).unwrap());
    let other = other.spawn().unwrap();
    wait_until("the other run waits for three members", || {
        let said = fs::read_to_string(&said).unwrap();
        said.matches("another mlwm does it").count() == 3
    });
    run.kill().unwrap();
    run.wait().unwrap();
    ended(&bench.site, other).expect(0, &["published"]);
    bench.all_is_published("out");
    assert_eq!(begun(&bench.site, 4), twice(second));
    bench.nothing_is_left();
}

/// I4: what was sent of a forecast from other inputs is no part of the one that is published.
#[test]
fn windows_of_two_forecasts_are_not_mixed() {
    let bench = bench("mixed", "retries: 0\n");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (mut run, _, second) = run_into_the_second(&bench, &proxy);
    let store = format!("member{second}.zarr");
    let sent = format!("{store}/t2m/c/0/0");
    wait_until("its first window is in the store", || {
        bench.objects("out").contains_key(&sent)
    });
    run.kill().unwrap();
    run.wait().unwrap();
    let before = bench.objects("out")[&sent].clone();
    let other = (second + 1) % 4;
    let of_other = bench.site.path(&format!("store/member{other}"));
    put(&of_other, &bench.bucket, &format!("in/member{second}"));
    let reader = Reader::of(&bench, "out");
    let again = bench.command(&RUN, &SERVER.endpoint).spawn().unwrap();
    ended(&bench.site, again).expect(0, &["published"]);
    assert_eq!(reader.saw_only_what_is_whole().1, 4);
    let got = bench.site.path("got");
    bench.bring("out", &got);
    let path = got.join("out").join(&store);
    let check = ["check", path.to_str().unwrap(), &other.to_string()];
    oracle("windows.py", &check);
    assert!(fs::read(got.join("out").join(&sent)).unwrap() != before);
    let uri = format!("s3://{}/out/{store}", bench.bucket);
    bench
        .mlwm(&["verify", &uri], &SERVER.endpoint)
        .expect(0, &["all as published"]);
    bench.nothing_is_left();
}

/// I4: with another seed they are other forecasts. What is published of the first ones stays, and nothing else of them.
#[test]
fn killed_and_run_with_another_seed_what_is_published_is_told_and_the_others_are_made() {
    let bench = bench("seeds", "seed: 100\nretries: 0\n");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (mut run, first, _) = run_into_the_second(&bench, &proxy);
    run.kill().unwrap();
    run.wait().unwrap();
    let file = bench.site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(&file).unwrap();
    fs::write(&file, yaml.replace("seed: 100", "seed: 200")).unwrap();
    let again = bench.command(&RUN, &SERVER.endpoint).spawn().unwrap();
    let told = format!("member{first}.zarr");
    ended(&bench.site, again).expect(31, &["another", &told]);
    let of = |member: usize| (if member == first { 100 } else { 200 }) + member as u64;
    let stores = bench.stores("out").into_values();
    let seeds: Vec<u64> = stores.map(|manifest| manifest.seed).collect();
    assert_eq!(seeds, [0, 1, 2, 3].map(of));
    let mut anew = bench.command(&[&RUN[..], &["--republish"]].concat(), &SERVER.endpoint);
    ended(&bench.site, anew.spawn().unwrap()).expect(0, &["published"]);
    let objects = bench.objects("out").into_iter();
    let manifests = objects.filter(|(name, _)| name.ends_with(MANIFEST_SUFFIX));
    let seeds =
        manifests.map(|(_, bytes)| serde_json::from_slice::<Manifest>(&bytes).unwrap().seed);
    assert_eq!(Vec::from_iter(seeds), [200, 201, 202, 203]);
    bench.nothing_is_left();
}

/// A run that is killed, with its container, when it asks the store for this: a request that begins with a method
/// and has these parts. The store does not see that request.
#[track_caller]
fn killed_at(bench: &Bench, method: &'static str, parts: [&'static str; 2]) {
    let (process, was_killed) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (of, done) = (Arc::clone(&process), Arc::clone(&was_killed));
    let proxy = Faulty::to(&SERVER.endpoint, move |line| {
        let is_meant = line.starts_with(method) && parts.iter().all(|part| line.contains(part));
        if is_meant && !done.swap(true, Ordering::SeqCst) {
            let id = of.load(Ordering::SeqCst).to_string();
            let killed = Command::new("kill").args(["-KILL", &id]).status();
            assert!(killed.unwrap().success());
        }
        // It cannot ask for anything more.
        let is_dead = done.load(Ordering::SeqCst);
        is_dead.then_some(Fault::Silence(Duration::ZERO))
    });
    let run = bench.command(&RUN, &proxy.endpoint).spawn().unwrap();
    process.store(run.id(), Ordering::SeqCst);
    let run = ran(&run.wait_with_output().unwrap());
    let was_killed = was_killed.load(Ordering::SeqCst);
    assert!(
        was_killed,
        "{method} {parts:?}: {}{}",
        run.stdout, run.stderr
    );
    for id in containers_of(&bench.site) {
        // It may have ended by itself.
        let _ = Command::new("docker").args(["kill", &id]).output();
    }
}

/// I3 and I4, at a store: wherever it is killed between the windows of its members, the same command publishes them,
/// and no reader sees a part of one.
#[test]
fn killed_while_it_publishes_nobody_sees_a_part_of_a_member() {
    let bench = Bench::new("parts");
    for (number, (method, parts)) in [
        ("PUT", ["member0.zarr.publishing.json", ""]),
        ("PUT", ["member0.zarr/", "t2m/c/0"]),
        ("PUT", ["member1.zarr/", "msl/c/1"]),
        ("HEAD", ["member1.zarr/", "t2m/c/2"]),
        ("PUT", ["member1.zarr/zarr.json", ""]),
        ("PUT", ["member1.zarr.manifest.json", ""]),
        // The marker of what is visible.
        ("POST", ["?delete", ""]),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = format!("at{number}");
        bench.publish_to(&folder);
        let reader = Reader::of(&bench, &folder);
        killed_at(&bench, method, parts);
        bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
        let (looks, manifests) = reader.saw_only_what_is_whole();
        assert!(looks > 5, "{looks}");
        assert_eq!(manifests, 3, "{method} {parts:?}");
        bench.all_is_published(&folder);
        bench.nothing_is_left();
    }
}

/// What of a member is published stays, and is not sent again.
#[test]
fn killed_between_the_manifests_of_two_outputs_the_same_command_publishes_the_second() {
    let few = "  few:
    uri: s3://two-outputs/out/few{member}.zarr
    internal_path: /out/few.zarr
    variables: [t2m]
    windows: {length: PT24H}
retries: 0
";
    let bench = Bench::of("two-outputs", 2, &windowed_with("of-two", ""), few);
    killed_at(&bench, "PUT", ["few1.zarr.manifest.json", ""]);
    let there = bench.objects("out");
    let has = |name: &str| there.contains_key(&format!("{name}.zarr.manifest.json"));
    assert_eq!(["member1", "few1"].map(has), [true, false]);
    let proxy = CountingProxy::to(&SERVER.endpoint);
    bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
    assert_eq!(begun(&bench.site, 2)[1], 1, "its model was done");
    let again = proxy.counts().requests;
    let sends = |to: &str| {
        let is_meant = |line: &&String| line.starts_with("PUT") && line.contains(to);
        again.iter().filter(is_meant).count()
    };
    assert_eq!((sends("/member1.zarr"), sends("/few1.zarr") > 0), (0, true));
    let stores: Vec<String> = bench.stores("out").into_keys().collect();
    let wanted = ["few0.zarr", "few1.zarr", "member0.zarr", "member1.zarr"];
    assert_eq!(stores, wanted);
    bench.nothing_is_left();
}

#[test]
fn the_last_object_of_a_store_is_the_manifest_of_the_ensemble() {
    let bench = Bench::of_ensemble("ensemble-last");
    let proxy = Faulty::to(&SERVER.endpoint, |_| None);
    bench
        .mlwm(&RUN, &proxy.endpoint)
        .expect(0, &["ensemble: published"]);
    let seen = proxy.seen().into_iter().map(|(line, _)| line);
    let changes: Vec<String> = seen
        .filter(|line| !line.starts_with("GET") && !line.starts_with("HEAD"))
        .collect();
    let last = changes
        .iter()
        .rposition(|line| !line.contains("?delete") && !line.starts_with("DELETE"))
        .unwrap();
    let is_meant =
        changes[last].starts_with("PUT") && changes[last].contains("/ensemble.zarr.manifest.json");
    assert!(is_meant, "{changes:?}");
    // The marker of what is visible.
    assert_eq!(changes.len(), last + 2, "{changes:?}");
    bench.ensemble_is_published();
    bench.nothing_is_left();
}

#[test]
fn killed_before_the_manifest_of_an_ensemble_the_same_command_publishes_it() {
    let bench = Bench::of_ensemble("ensemble-killed");
    let reader = Reader::of(&bench, "out");
    killed_at(&bench, "PUT", ["ensemble.zarr.manifest.json", ""]);
    let there = bench.objects("out");
    let has = |name: &str| there.contains_key(&format!("{name}.zarr.manifest.json"));
    let names = ["member0", "member1", "member2", "ensemble"];
    assert_eq!(names.map(has), [true, true, true, false]);
    bench
        .mlwm(&RUN, &SERVER.endpoint)
        .expect(0, &["already published", "ensemble: published"]);
    assert_eq!(begun(&bench.site, 3), [1, 1, 1], "no member is made again");
    let (_, manifests) = reader.saw_only_what_is_whole();
    assert_eq!(manifests, 4);
    bench.ensemble_is_published();
    bench.nothing_is_left();
}
