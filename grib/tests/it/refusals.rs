//! Forecasts and fields that GRIB cannot say are refused, with their names.

use mlwm_grib::{
    Error, Field, Forecast, Grid, Level, Member, Process, ReducedGaussian, Span, Writer,
};

use crate::writing::{field, forecast};

fn refusal(forecast: Forecast, field: &Field) -> String {
    let mut writer = Writer::new(forecast).unwrap();
    let error = writer.message(field).unwrap_err();
    assert!(matches!(error, Error::Field { .. }));
    error.to_string()
}

#[test]
fn fields_that_cannot_be_encoded_are_named() {
    let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(8));
    let good = field(&grid, "2t", None, Span::Instant(6));
    let refused = |field: &Field| refusal(forecast(grid.clone()), field);

    let mut short = good.clone();
    short.values.pop();
    let points = grid.points();
    let expected = format!(
        "has {} values, but the grid O8 has {points} points",
        points - 1
    );
    assert!(refused(&short).contains(&expected));

    let mut infinite = good.clone();
    infinite.values[5] = f32::INFINITY;
    let message = refused(&infinite);
    assert!(
        message.starts_with("the field `2t` at 6 h cannot be written as GRIB"),
        "{message}"
    );
    assert!(message.contains("point 5 is infinite"), "{message}");

    let instant = field(&grid, "tp", None, Span::Instant(6));
    assert!(refused(&instant).contains("over an interval"));

    let mut empty = field(&grid, "tp", None, Span::Instant(6));
    empty.span = Span::Interval {
        process: Process::Accumulation,
        start: 6,
        end: 6,
    };
    assert!(refused(&empty).contains("6-6 h is empty"));

    let elsewhere = field(
        &grid,
        "2t",
        Some(Level::at("noSuchLevel", 1.0)),
        Span::Instant(6),
    );
    assert!(
        refused(&elsewhere).contains("noSuchLevel"),
        "{}",
        refused(&elsewhere)
    );

    // At another height it is another parameter.
    let higher = field(
        &grid,
        "2t",
        Some(Level::at("heightAboveGround", 50.0)),
        Span::Instant(6),
    );
    assert!(
        refused(&higher).contains("another parameter"),
        "{}",
        refused(&higher)
    );
}

#[test]
fn forecasts_that_cannot_be_encoded_are_refused() {
    let good = forecast(Grid::ReducedGaussian(ReducedGaussian::octahedral(8)));
    let refused = |change: fn(&mut Forecast)| {
        let mut forecast = good.clone();
        change(&mut forecast);
        let error = Writer::new(forecast).unwrap_err();
        assert!(matches!(error, Error::Forecast { .. }));
        error.to_string()
    };
    let text = refused(|forecast| forecast.packing.bits_per_value = 33);
    assert!(text.contains("33 bits"));
    let text = refused(|forecast| {
        forecast.member = Some(Member {
            number: 300,
            count: 400,
        })
    });
    assert!(text.contains("300 of 400"));
    let text =
        refused(|forecast| forecast.analysis_time = "2024-01-01T00:00:00.5Z".parse().unwrap());
    assert!(text.contains("whole seconds"));
    assert!(ReducedGaussian::classic(33).is_err());
    assert!(ReducedGaussian::new(vec![20, 20, 20]).is_none());
    assert!(ReducedGaussian::new(vec![0, 0]).is_none());
}
