//! Which tasks of a plan read what others of it make, and an order in which they can be done.

use std::collections::BTreeMap;

use mlwm_storage::Uri;

use super::{PlannedEnsemble, PlannedTask};
use crate::Error;

/// For each task the turns of those that make what it reads.
pub(crate) fn waits_for(tasks: &[PlannedTask]) -> Vec<Vec<usize>> {
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for (turn, task) in tasks.iter().enumerate() {
        made.extend(task.outputs.iter().map(|output| (place(&output.uri), turn)));
    }
    let mut all = Vec::with_capacity(tasks.len());
    for (turn, task) in tasks.iter().enumerate() {
        let mut others = Vec::new();
        for input in &task.inputs {
            others.extend(makers(&place(&input.uri), &made));
        }
        others.retain(|other| *other != turn);
        others.sort_unstable();
        others.dedup();
        all.push(others);
    }
    all
}

/// The tasks that make a place, something in it, or what it lies in.
pub(crate) fn makers<'a>(
    read: &'a str,
    made: &'a BTreeMap<String, usize>,
) -> impl Iterator<Item = usize> + 'a {
    let ends = read.match_indices('/').map(|(at, _)| &read[..at]);
    let around = ends.chain([read]).filter_map(|place| made.get(place));
    let inside = made
        .range(read.to_owned()..)
        .skip_while(move |(place, _)| **place == *read)
        // Names that begin alike lie between: `a-b` between `a` and `a/b`.
        .take_while(move |(place, _)| place.starts_with(read))
        .filter(move |(place, _)| place[read.len()..].starts_with('/'))
        .map(|(_, turn)| turn);
    around.chain(inside).copied()
}

/// A place as one text, however it is written.
pub(crate) fn place(uri: &str) -> String {
    let parsed: Result<Uri, _> = uri.parse();
    let text = parsed.map_or_else(|_| uri.to_owned(), |uri| uri.to_string());
    text.trim_end_matches('/').to_owned()
}

/// Puts each task behind those that make what it reads, and else leaves them as they are.
///
/// # Errors
/// [`Error::Circle`] if tasks wait for one another, [`Error::ReadsEnsemble`] if one reads what is made of all
/// members when all tasks are done.
pub(crate) fn settle(
    tasks: &mut Vec<PlannedTask>,
    ensembles: &[PlannedEnsemble],
) -> Result<(), Error> {
    let makes: BTreeMap<String, usize> = ensembles
        .iter()
        .enumerate()
        .map(|(at, ensemble)| (place(&ensemble.uri), at))
        .collect();
    for task in tasks.iter() {
        let mut inputs = task.inputs.iter();
        if let Some(input) =
            inputs.find(|input| makers(&place(&input.uri), &makes).next().is_some())
        {
            return Err(Error::ReadsEnsemble {
                task: task.title(),
                uri: input.uri.clone(),
            });
        }
    }
    let waits = waits_for(tasks);
    let is_settled =
        |(turn, others): (usize, &Vec<usize>)| others.iter().all(|other| *other < turn);
    if waits.iter().enumerate().all(is_settled) {
        return Ok(());
    }
    let order = in_order(&waits).map_err(|waiting| {
        let titles = waiting.into_iter().take(3).map(|turn| tasks[turn].title());
        Error::Circle(titles.collect::<Vec<_>>().join(", "))
    })?;
    let mut taken: Vec<Option<PlannedTask>> = tasks.drain(..).map(Some).collect();
    tasks.extend(order.into_iter().filter_map(|turn| taken[turn].take()));
    Ok(())
}

/// An order for tasks that wait for others, the earliest first; those that cannot be done, if there are any.
fn in_order(waits: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut left: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); waits.len()];
    for (turn, others) in waits.iter().enumerate() {
        for other in others {
            followers[*other].push(turn);
        }
    }
    let ready = (0..waits.len()).filter(|turn| left[*turn] == 0);
    let mut ready: std::collections::BTreeSet<usize> = ready.collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(turn) = ready.pop_first() {
        order.push(turn);
        for follower in &followers[turn] {
            left[*follower] -= 1;
            if left[*follower] == 0 {
                ready.insert(*follower);
            }
        }
    }
    match order.len() == waits.len() {
        true => Ok(order),
        false => Err((0..waits.len()).filter(|turn| left[*turn] > 0).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_a_place_is_found_around_and_inside_it() {
        let made = [("./a", 0), ("./a-b", 1), ("./a/b/c", 2), ("./d/e", 3)];
        let made = made.map(|(place, turn)| (place.to_owned(), turn));
        let made = BTreeMap::from(made);
        let found = |read: &str| {
            let mut found: Vec<usize> = makers(read, &made).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found("./a"), [0, 2]);
        assert_eq!(found("./a/b"), [0, 2]);
        assert_eq!(found("./a/b/c/zarr.json"), [0, 2]);
        assert_eq!(found("./d"), [3]);
        assert_eq!(found("./a-"), [0; 0]);
        assert_eq!(found("./f"), [0; 0]);
    }

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        let folder = std::env::current_dir().unwrap();
        let whole = format!("file://{}/out/raw", folder.display());
        assert_eq!(place("./out/raw"), place(&whole));
        assert_eq!(place("out/raw/"), place(&whole));
        assert_ne!(place("./out/raw-2"), place(&whole));
        assert_eq!(place("s3://a/b"), place("s3://a/b/"));
    }

    #[test]
    fn tasks_stand_behind_those_that_they_wait_for() {
        assert_eq!(
            in_order(&[vec![2], vec![], vec![1], vec![]]),
            Ok(vec![1, 2, 0, 3])
        );
        assert_eq!(in_order(&[vec![1], vec![0], vec![]]), Err(vec![0, 1]));
        assert_eq!(in_order(&[]), Ok(vec![]));
    }
}
