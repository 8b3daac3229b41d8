//! Values over time, each series a line.

use plotters::element::PathElement;
use plotters::style::{RGBColor, ShapeStyle};

use crate::Error;
use crate::chart::{Chart, WIDTH};
use crate::colours::extremes;
use crate::figure::{Align, Canvas, Figure, GRID_ALPHA, LINE, THICK, along, failed, opaque};
use crate::layout::{self, Area, FAR, FOOT, LABEL, NEAR, NUMBER, TICK, label_of, line};
use crate::text::Fonts;
use crate::ticks::Ticks;
use crate::units::{self, range_text};

/// Series over common times, and what is written around them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Seconds since 1970, rising.
    pub times: Vec<i64>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Long name of what is drawn.
    pub title: String,
    /// Lines below the title.
    pub subtitle: String,
    /// Units of the values, as CF writes them.
    pub units: String,
}

/// One series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// What it is called in the legend.
    pub label: String,
    /// One value for each time; NaN is missing and leaves a gap.
    pub values: Vec<f64>,
}

/// Colours that differ for all readers (Okabe and Ito).
const COLOURS: [[u8; 3]; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [60, 60, 60],
];
const HEIGHT: i32 = 560;

/// Draws the figure.
pub(crate) fn draw(series: &Series) -> Result<Figure, Error> {
    let refuse = |reason: String| Error::Chart {
        title: series.title.clone(),
        reason,
    };
    let (Some(&first), Some(&last)) = (series.times.first(), series.times.last()) else {
        return Err(refuse("it has no times".to_owned()));
    };
    if series.lines.is_empty() {
        return Err(refuse("it has no lines".to_owned()));
    }
    if let Some(line) = series
        .lines
        .iter()
        .find(|line| line.values.len() != series.times.len())
    {
        let reason = format!(
            "`{}` has {} values at {} times",
            line.label,
            line.values.len(),
            series.times.len()
        );
        return Err(refuse(reason));
    }
    let values: Vec<f64> = series
        .lines
        .iter()
        .flat_map(|line| line.values.iter().copied())
        .collect();
    let found = extremes(&values);
    let (low, high) = match found {
        Some((low, high)) if high > low => {
            let margin = (high - low) * 0.04;
            (low - margin, high + margin)
        }
        Some((value, _)) => (
            value - value.abs().max(1.0) * 0.05,
            value + value.abs().max(1.0) * 0.05,
        ),
        None => (0.0, 1.0),
    };
    let fonts = Fonts::load()?;
    let ticks = Ticks::between(low, high, 6);
    let widths = ticks.texts.iter().map(|text| fonts.width(text, &NUMBER));
    let numbers = widths.fold(0.0f32, f32::max).ceil() as i32;
    let chart = Chart {
        title: &series.title,
        subtitle: &series.subtitle,
        times: (first, last),
        left: line(&LABEL) + 2 * NEAR + numbers + NEAR + TICK,
        height: HEIGHT,
        foot: FAR / 2 + line(&FOOT) + NEAR,
    };
    let label = label_of(&ticks, &units::typeset(&series.units));
    chart.draw(&fonts, |canvas, field| {
        values_axis(canvas, field, &ticks, (low, high))?;
        let middle = (
            field.left - TICK - 2 * NEAR - numbers - NEAR,
            field.top + field.height / 2,
        );
        canvas.upright_text(&label, &LABEL, middle)?;
        for (at, line) in series.lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let place = |(time, value): (&i64, &f64)| {
                (
                    field.left + chart.across(*time),
                    field.bottom() - along((low, high), *value, field.height),
                )
            };
            draw_line(canvas, series, line, colour, place)?;
        }
        legend(
            canvas,
            series,
            &fonts,
            field,
            chart.foot_baseline(field),
            found,
        )
    })
}

fn values_axis(
    canvas: &Canvas<'_>,
    field: Area,
    ticks: &Ticks,
    ends: (f64, f64),
) -> Result<(), Error> {
    for (value, text) in ticks.values.iter().zip(&ticks.texts) {
        let at = field.bottom() - along(ends, *value, field.height);
        let rule = Area {
            left: field.left,
            top: at,
            width: field.width,
            height: 1,
        };
        canvas.fill(rule, plotters::style::RGBAColor(0, 0, 0, GRID_ALPHA))?;
        let tick = Area {
            left: field.left - TICK,
            top: at - THICK / 2,
            width: TICK,
            height: THICK,
        };
        canvas.fill(tick, opaque(LINE))?;
        let place = (field.left - TICK - NEAR, at + layout::capital(&NUMBER) / 2);
        canvas.text(text, &NUMBER, place, Align::Right)?;
    }
    Ok(())
}

/// Draws a line with gaps where values are missing; a value between two gaps is a dot.
fn draw_line(
    canvas: &Canvas<'_>,
    series: &Series,
    line: &Line,
    [red, green, blue]: [u8; 3],
    place: impl Fn((&i64, &f64)) -> (i32, i32),
) -> Result<(), Error> {
    let style = ShapeStyle::from(&RGBColor(red, green, blue)).stroke_width(2);
    let points: Vec<(&i64, &f64)> = series.times.iter().zip(&line.values).collect();
    for part in points.split(|(_, value)| !value.is_finite()) {
        let places: Vec<(i32, i32)> = part.iter().map(|point| place(*point)).collect();
        match places.as_slice() {
            [] => {}
            [(x, y)] => {
                let dot = Area {
                    left: x - 2,
                    top: y - 2,
                    width: 5,
                    height: 5,
                };
                canvas.fill(dot, opaque([red, green, blue]))?;
            }
            // Fewer times than columns of pixels: a smooth line.
            places if series.times.len() < WIDTH as usize / 2 => {
                let line = PathElement::new(places.to_vec(), style);
                canvas.area.draw(&line).map_err(failed)?;
            }
            places => {
                for area in columns(places) {
                    canvas.fill(area, opaque([red, green, blue]))?;
                }
            }
        }
    }
    Ok(())
}

/// A line as what it covers of each column of pixels.
fn columns(places: &[(i32, i32)]) -> Vec<Area> {
    let mut extents: Vec<(i32, i32, i32)> = Vec::new();
    let mut cover = |x: i32, one: i32, other: i32| {
        let (low, high) = (one.min(other), one.max(other));
        match extents.last_mut().filter(|extent| extent.0 == x) {
            Some(extent) => (extent.1, extent.2) = (extent.1.min(low), extent.2.max(high)),
            None => extents.push((x, low, high)),
        }
    };
    for pair in places.windows(2) {
        let ((x, y), (next_x, next_y)) = (pair[0], pair[1]);
        let steps = (next_x - x).max(1);
        let at = |step: i32| y + ((next_y - y) * step + steps / 2) / steps;
        for step in 0..steps {
            cover(x + step, at(step), at(step + 1));
        }
    }
    let area = |(x, top, bottom): (i32, i32, i32)| Area {
        left: x,
        top: top - 1,
        width: 1,
        height: bottom - top + 2,
    };
    extents.into_iter().map(area).collect()
}

/// The names of the lines, and the extremes of all.
fn legend(
    canvas: &Canvas<'_>,
    series: &Series,
    fonts: &Fonts,
    field: Area,
    baseline: i32,
    found: Option<(f64, f64)>,
) -> Result<(), Error> {
    let mut left = field.left;
    for (at, line) in series.lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let swatch = Area {
            left,
            top: baseline - layout::capital(&FOOT) / 2 - 2,
            width: 36,
            height: 5,
        };
        canvas.fill(swatch, opaque(colour))?;
        left = swatch.right() + NEAR;
        canvas.text(&line.label, &FOOT, (left, baseline), Align::Left)?;
        left += fonts.width(&line.label, &FOOT).ceil() as i32 + FAR;
    }
    let text = range_text(found, &series.units);
    let width = fonts.width(&text, &FOOT).ceil() as i32;
    let right = field.right().max(left + width);
    canvas.text(&text, &FOOT, (right, baseline), Align::Right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_through_their_values_and_gaps_are_left() {
        let series = Series {
            times: (0..11).map(|at| at * 86_400).collect(),
            lines: vec![Line {
                label: "a".to_owned(),
                values: (0..11)
                    .map(|at| {
                        if at == 5 {
                            f64::NAN
                        } else {
                            2.0 * f64::from(at % 2)
                        }
                    })
                    .collect(),
            }],
            title: "t".to_owned(),
            ..Series::default()
        };
        let figure = draw(&series).unwrap();
        let is_line = |pixel: &[u8]| pixel == COLOURS[0];
        let columns: std::collections::BTreeSet<usize> = (0..figure.height as usize / 2)
            .flat_map(|row| (0..figure.width as usize).map(move |column| (row, column)))
            .filter(|(row, column)| {
                let at = (row * figure.width as usize + column) * 3;
                is_line(&figure.rgb[at..at + 3])
            })
            .map(|(_, column)| column)
            .collect();
        let (first, last) = (columns.first().unwrap(), columns.last().unwrap());
        // From the first to the last day, without the two days around the missing value.
        assert!(last - first > 1000, "{first} {last}");
        let missing = (first + last) / 2;
        assert!(!columns.contains(&missing) && columns.contains(&(missing - 248)));
    }

    #[test]
    fn charts_without_sense_are_refused() {
        let line = Line {
            label: "a".to_owned(),
            values: vec![1.0],
        };
        for (times, lines) in [
            (vec![], vec![line.clone()]),
            (vec![0], vec![]),
            (vec![0, 1], vec![line]),
        ] {
            let series = Series {
                times,
                lines,
                ..Series::default()
            };
            assert!(matches!(draw(&series), Err(Error::Chart { .. })));
        }
    }
}
