//! Every order in which the steps of two publishers can fall, and many of three and four.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::REGISTRY_VERSION;

/// What a publisher was told, if it came to its end.
type Told = Option<Result<Outcome, Error>>;

/// A store without conditional writes, where each call is one step.
#[derive(Default)]
struct Memory(Mutex<(Option<Publication>, Vec<Claim>)>);

/// What one publisher sees of it.
struct View<'a>(&'a Memory, Digest);

impl View<'_> {
    /// Lets others go first; then the step happens at once.
    async fn step(&self) -> MutexGuard<'_, (Option<Publication>, Vec<Claim>)> {
        let mut asked = false;
        std::future::poll_fn(|_| match std::mem::replace(&mut asked, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        self.0.0.lock().unwrap()
    }
}

impl Place for View<'_> {
    fn publication(&self) -> String {
        "model".to_owned()
    }
    async fn record(&self) -> Result<Option<Publication>, Error> {
        Ok(self.step().await.0.clone())
    }
    async fn claims(&self) -> Result<Vec<Claim>, Error> {
        Ok(self.step().await.1.clone())
    }
    async fn claim(&self, claim: &Claim) -> Result<(), Error> {
        self.step().await.1.push(claim.clone());
        Ok(())
    }
    async fn withdraw(&self, claim: &Claim) -> Result<(), Error> {
        self.step().await.1.retain(|other| other != claim);
        Ok(())
    }
    async fn clear(&self, claim: &Claim) -> Result<(), Error> {
        self.withdraw(claim).await
    }
    async fn write(&self) -> Result<(), Error> {
        self.step().await.0 = Some(publication(self.1));
        Ok(())
    }
    async fn settle(&self) -> Result<(), Error> {
        drop(self.step().await);
        Ok(())
    }
}

fn publication(digest: Digest) -> Publication {
    Publication {
        format: REGISTRY_VERSION,
        name: "model".parse().unwrap(),
        tag: mlwm_spec::Tag::latest(),
        digest,
        set_digest: digest,
        size: 1,
        files: 1,
        published_at: String::new(),
        object: String::new(),
        provenance: None,
    }
}

/// Runs publishers of these contents; `schedule` says whose step is next (modulo those that are not
/// done), and when it ends the publisher `dies`, if one does, is never run again and the others run
/// to their end in turn.
fn race(
    contents: &[Digest],
    schedule: &[usize],
    dies: Option<usize>,
) -> (Memory, Vec<Told>, Vec<usize>) {
    type Run<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Error>> + 'a>>;
    let memory = Memory::default();
    let views: Vec<View<'_>> = contents
        .iter()
        .map(|digest| View(&memory, *digest))
        .collect();
    let mut runs: Vec<Option<Run<'_>>> = views
        .iter()
        .map(|view| Some(Box::pin(publish(view, view.1)) as Run<'_>))
        .collect();
    let mut results: Vec<Told> = contents.iter().map(|_| None).collect();
    let mut alive = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    for turn in 0.. {
        let after = turn >= schedule.len();
        let left: Vec<usize> = (0..runs.len())
            .filter(|who| runs[*who].is_some() && !(after && dies == Some(*who)))
            .collect();
        if left.is_empty() {
            break;
        }
        alive.push(left.len());
        let who = left[schedule.get(turn).copied().unwrap_or(turn) % left.len()];
        let run = runs[who].as_mut().unwrap();
        if let Poll::Ready(result) = run.as_mut().poll(&mut context) {
            results[who] = Some(result);
            runs[who] = None;
        }
    }
    drop(runs);
    drop(views);
    (memory, results, alive)
}

/// Whoever was told that it won has won for good.
fn check(contents: &[Digest], memory: &Memory, results: &[Told]) {
    let (record, _) = &*memory.0.lock().unwrap();
    for (content, result) in contents.iter().zip(results) {
        match result {
            Some(Ok(_)) => assert_eq!(record.as_ref().unwrap().digest, *content),
            // This store forgets nothing.
            Some(Err(error)) => assert!(
                matches!(error, Error::Conflict { .. } | Error::Claimed { .. }),
                "{error}"
            ),
            None => {}
        }
    }
}

#[test]
fn in_every_order_one_of_two_wins_and_the_other_is_told() {
    let contents = [Digest::of("a"), Digest::of("b")];
    let mut schedule: Vec<usize> = Vec::new();
    let mut orders = 0_u32;
    loop {
        let (memory, results, alive) = race(&contents, &schedule, None);
        check(&contents, &memory, &results);
        let won = results
            .iter()
            .flatten()
            .filter(|result| result.is_ok())
            .count();
        assert_eq!(won, 1, "{schedule:?}");
        orders += 1;
        // The next order: the last turn where the other one could have gone instead.
        let turns = alive.len().min(24);
        schedule.resize(turns, 0);
        while let Some(last) = schedule.pop() {
            if last + 1 < alive[schedule.len()] {
                schedule.push(last + 1);
                break;
            }
        }
        if schedule.is_empty() {
            break;
        }
    }
    assert!(orders > 5_000, "{orders}");
}

#[test]
fn who_withdrew_for_another_is_told_what_that_one_published() {
    let contents = [Digest::of("a"), Digest::of("b")];
    let smaller = usize::from(contents[1] < contents[0]);
    // Both look at the record and claim, and from then on take turns.
    let (_, results, _) = race(&contents, &[0, 1, 0, 1, 0, 1], None);
    assert_eq!(
        *results[smaller].as_ref().unwrap().as_ref().unwrap(),
        Outcome::Written
    );
    match results[1 - smaller].as_ref().unwrap() {
        Err(Error::Conflict { theirs, .. }) => assert_eq!(*theirs, contents[smaller]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_content_from_two_is_published_in_every_order() {
    let contents = [Digest::of("a"), Digest::of("a")];
    for order in 0..1_u32 << 14 {
        let schedule: Vec<usize> = (0..14).map(|turn| (order >> turn & 1) as usize).collect();
        let (memory, results, _) = race(&contents, &schedule, None);
        check(&contents, &memory, &results);
        assert!(results.iter().flatten().all(Result::is_ok), "{schedule:?}");
        assert!(
            memory.0.lock().unwrap().1.is_empty(),
            "a claim is left over"
        );
    }
}

#[test]
fn a_claim_of_a_dead_publisher_is_named_and_its_own_content_may_still_come() {
    let (theirs, ours) = (Digest::of("theirs"), Digest::of("ours"));
    // The look at the record and the claim: two steps of two polls each.
    let (memory, _, _) = race(&[theirs], &[0, 0, 0], Some(0));
    assert_eq!(memory.0.lock().unwrap().1.len(), 1);
    let run = |digest| {
        let mut context = Context::from_waker(Waker::noop());
        let view = View(&memory, digest);
        let mut run = std::pin::pin!(publish(&view, digest));
        loop {
            if let Poll::Ready(result) = run.as_mut().poll(&mut context) {
                return result;
            }
        }
    };
    let error = run(ours).unwrap_err();
    assert!(error.to_string().contains(&theirs.to_string()), "{error}");
    assert!(error.to_string().contains("--claims-only"), "{error}");
    assert_eq!(run(theirs).unwrap(), Outcome::Written);
    assert!(memory.0.lock().unwrap().1.is_empty());
    assert!(matches!(run(ours), Err(Error::Conflict { .. })));
}

#[test]
fn a_claim_is_read_back() {
    let claim = Claim::new(Digest::of("a")).unwrap();
    assert_eq!(Claim::parse(&claim.text()), Some(claim.clone()));
    assert_ne!(Claim::new(Digest::of("a")).unwrap(), claim);
    let hex = Digest::of("a").hex();
    for text in [
        "",
        "x.y",
        &hex,
        &format!("{hex}."),
        &format!("{hex}.a.b"),
        &format!("{hex}.a/b"),
    ] {
        assert_eq!(Claim::parse(text), None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn of_several_none_is_told_what_is_not_so(
        contents in proptest::collection::vec(0..3_u8, 2..5),
        schedule in proptest::collection::vec(0..12_usize, 0..80),
        dies in proptest::option::of(0..4_usize),
    ) {
        let contents: Vec<Digest> = contents.iter().map(|content| Digest::of([*content])).collect();
        let (memory, results, _) = race(&contents, &schedule, dies);
        check(&contents, &memory, &results);
    }
}
