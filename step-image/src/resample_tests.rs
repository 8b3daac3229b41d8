#![allow(clippy::unwrap_used)]

use super::*;

const HOUR: i64 = 3600;

fn six_hours(method: Method) -> Resampling {
    Resampling {
        every: Period::from_seconds(6 * HOUR).unwrap(),
        method,
    }
}

fn hours(hours: impl IntoIterator<Item = i64>) -> Vec<Moment> {
    hours
        .into_iter()
        .map(|hour| Moment::at(hour * HOUR))
        .collect()
}

fn fields(windows: &Windows) -> Vec<(i64, Vec<usize>)> {
    let of = |parts: &Vec<Part>| parts.iter().map(|part| part.field).collect();
    let whole = windows.whole.iter();
    whole
        .map(|(begin, parts)| (begin / HOUR, of(parts)))
        .collect()
}

#[test]
fn a_window_has_the_instants_from_its_beginning_on() {
    let windows = windows(&hours(0..12), StepType::Instant, &six_hours(Method::Mean));
    assert_eq!(windows.faults, []);
    assert_eq!(
        fields(&windows),
        [(0, (0..6).collect()), (6, (6..12).collect::<Vec<_>>())]
    );
    assert_eq!(windows.spacing, Some(HOUR));
}

#[test]
fn a_missing_instant_is_named_with_its_window() {
    let times = hours((0..12).filter(|hour| *hour != 8));
    let windows = windows(&times, StepType::Instant, &six_hours(Method::Mean));
    assert_eq!(
        windows.faults,
        [Fault::Missing {
            window: 6 * HOUR,
            from: 8 * HOUR,
            to: 9 * HOUR
        }]
    );
    assert_eq!(windows.whole.len(), 1);
}

#[test]
fn a_trailing_instant_makes_an_incomplete_window() {
    let windows = windows(&hours(0..13), StepType::Instant, &six_hours(Method::Mean));
    assert!(matches!(windows.faults[..], [Fault::Missing { window, .. }] if window == 12 * HOUR));
}

#[test]
fn an_interval_belongs_to_the_window_that_it_is_in() {
    let hourly = |hour: i64| Moment {
        label: hour * HOUR,
        start: (hour - 1) * HOUR,
        end: hour * HOUR,
        run: 0,
    };
    let amounts: Vec<Moment> = (1..=6).map(hourly).collect();
    let windows = windows(&amounts, StepType::Amount, &six_hours(Method::Sum));
    assert_eq!(windows.faults, []);
    assert_eq!(fields(&windows), [(0, (0..6).collect::<Vec<_>>())]);
}

#[test]
fn amounts_since_the_beginning_are_subtracted_from_each_other() {
    let since = |hour: i64| Moment {
        label: hour * HOUR,
        start: 0,
        end: hour * HOUR,
        run: 0,
    };
    let amounts: Vec<Moment> = [3, 6, 9, 12].map(since).to_vec();
    let windows = windows(&amounts, StepType::Amount, &six_hours(Method::Deaccumulate));
    assert_eq!(windows.faults, []);
    let minus: Vec<Option<usize>> = windows
        .whole
        .values()
        .flatten()
        .map(|part| part.minus)
        .collect();
    assert_eq!(minus, [None, Some(0), Some(1), Some(2)]);
    let wrong = super::windows(&amounts, StepType::Amount, &six_hours(Method::Sum));
    assert!(!wrong.faults.is_empty());
}

#[test]
fn amounts_are_not_averaged_and_instants_are_not_summed() {
    let times = hours(0..6);
    let mean = windows(&times, StepType::Amount, &six_hours(Method::Mean));
    assert_eq!(mean.faults, [Fault::Method(Method::Mean, StepType::Amount)]);
    let sum = windows(&times, StepType::Instant, &six_hours(Method::Sum));
    assert_eq!(sum.faults, [Fault::Method(Method::Sum, StepType::Instant)]);
}

#[test]
fn cell_methods_say_what_values_are() {
    for (text, expected) in [
        ("", StepType::Instant),
        ("area: mean time: point", StepType::Instant),
        ("time: sum (interval: 1 hour)", StepType::Amount),
        ("time: mean", StepType::Mean),
        ("time: variance", StepType::Other),
    ] {
        assert_eq!(StepType::of_cell_methods(text, "time"), expected, "{text}");
    }
}
