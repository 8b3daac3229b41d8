//! An ensemble is killed at the places at which what is here, what is noted, and what a store has are not the same: the
//! same command publishes what an undisturbed run does, and what was done is not done again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use mlwm_tests::bench::{Bench, MEMBERS, SERVER, begun, brought, sent};
use mlwm_tests::counting_proxy::CountingProxy;
use mlwm_tests::site::ran;
use mlwm_tests::witness::containers_of;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];

/// One run after the other is killed, each at the next of these places, then one ends. Each list begins from nothing.
const PLACES: [&[&str]; 3] = [
    // From the inputs to the first windows.
    &[
        "stage: complete",
        "stage: renamed",
        "warm: handed over",
        "window: encoded",
        // The store has it, and nobody noted that.
        "publish: object",
        "publish: noted",
    ],
    // Windows go to the store, and are removed; so are the inputs.
    &[
        "window: sent",
        "window: half removed",
        "inputs: half removed",
        "window: complete",
        // Of what is complete, without the model.
        "publish: object",
        "publish: visible",
    ],
    // The model is done with all members: what is left is to clear up, and the ensemble.
    &[
        "warm: removed in part",
        "task: half removed",
        "ensemble: window sent",
        "ensemble: sent",
        BEFORE_THE_LAST,
        "ensemble: published",
    ],
];

/// As soon as all members are published, this is the manifest of the ensemble.
const BEFORE_THE_LAST: &str = "publish: before the manifest";

/// What is published, but for when and where.
fn decisive(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let mut objects = bench.objects("out");
    for (_, manifest) in objects
        .iter_mut()
        .filter(|(name, _)| name.ends_with(".manifest.json"))
    {
        let mut stripped: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        stripped.as_object_mut().unwrap().remove("run").unwrap();
        *manifest = serde_json::to_vec(&stripped).unwrap();
    }
    objects
}

/// What a run that was killed left done.
#[derive(Default)]
struct Done {
    /// Members that are published.
    published: BTreeSet<u64>,
    /// Members with which the model is done, as is noted.
    complete: BTreeSet<u64>,
    /// How often the model began with each member.
    begun: Vec<usize>,
}

impl Done {
    fn of(bench: &Bench) -> Self {
        let names = bench.names("out");
        let has_manifest =
            |member: &u64| names.contains(&format!("member{member}.zarr.manifest.json"));
        let here = bench.site.files("mlwm-work/tasks");
        let is_noted = |member: &u64| {
            let noted = format!("/member{member}/complete.json");
            here.iter().any(|file| file.ends_with(&noted))
        };
        Self {
            published: (0..MEMBERS).filter(has_manifest).collect(),
            complete: (0..MEMBERS).filter(is_noted).collect(),
            begun: begun(&bench.site, MEMBERS),
        }
    }

    /// Fails if a run did something of it again.
    #[track_caller]
    fn is_not_done_again(&self, bench: &Bench, proxy: &CountingProxy, place: &str) {
        let (begun, brought) = (begun(&bench.site, MEMBERS), brought(proxy, MEMBERS));
        for &member in self.published.union(&self.complete) {
            let at = usize::try_from(member).unwrap();
            let about = format!("member {member}, {place}");
            assert_eq!(begun[at], self.begun[at], "the model ran again: {about}");
            assert_eq!(brought[at], 0, "it was brought again: {about}");
        }
        for &member in &self.published {
            let sent = sent(proxy, member);
            assert_eq!(sent, 0, "it was sent again: member {member}, {place}");
        }
    }
}

/// I3 and I5: with their containers, and without.
#[test]
fn killed_at_each_of_these_places_the_same_command_publishes_the_same() {
    let bench = Bench::of_ensemble("places");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    bench
        .mlwm(&RUN, &SERVER.endpoint)
        .expect(0, &["ensemble: published"]);
    let undisturbed = decisive(&bench);
    for places in PLACES {
        bench.forget("out");
        let mut done = Done::default();
        for (number, place) in places.iter().enumerate() {
            proxy.reset();
            let mut run = bench.command_of("mlwm-kill-points", &RUN, &proxy.endpoint);
            let killed = run.env("MLWM_KILL_AT", place).output().unwrap();
            let (signal, said) = (killed.status.signal(), ran(&killed));
            let said = format!("{place}: {}{}", said.stdout, said.stderr);
            assert_eq!(signal, Some(6), "it did not come to {said}");
            done.is_not_done_again(&bench, &proxy, place);
            if number % 2 == 0 {
                for id in containers_of(&bench.site) {
                    // It may have ended by itself.
                    let _ = Command::new("docker").args(["kill", &id]).output();
                }
            }
            done = Done::of(&bench);
            if *place == BEFORE_THE_LAST {
                assert_eq!(done.published.len() as u64, MEMBERS, "{said}");
                let last = "ensemble.zarr.manifest.json";
                assert!(!bench.names("out").contains(last), "{said}");
            }
        }
        proxy.reset();
        bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
        done.is_not_done_again(&bench, &proxy, "at last");
        assert!(decisive(&bench) == undisturbed, "after {places:?}");
        bench.ensemble_is_published();
        nothing_leaks(&bench);
    }
}

/// Nothing stays of a run but logs, its history, and claims that were let go.
#[track_caller]
fn nothing_leaks(bench: &Bench) {
    bench.nothing_is_left();
    assert!(!bench.site.path("mlwm-work/warm").exists());
    for claim in bench.site.files("mlwm-work/claims") {
        // One that never got its name is none; it is removed when it is old.
        if !claim.contains("/.claim-") {
            let path = bench.site.path("mlwm-work/claims").join(&claim);
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains("\"released\":true"), "{claim} {text}");
        }
    }
}
