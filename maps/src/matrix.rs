//! What of each variable is there at each time.

use crate::Error;
use crate::chart::{Chart, WIDTH};
use crate::figure::{Align, Figure, opaque};
use crate::layout::{self, Area, FAR, FOOT, NEAR, NUMBER, TICK, line};
use crate::text::Fonts;

/// Rows of what is there over time, and what is written around them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Seconds since 1970, rising.
    pub times: Vec<i64>,
    /// The name of each row, and for each time how much of it is there, from 0 to 1.
    pub rows: Vec<(String, Vec<f64>)>,
    /// What it is.
    pub title: String,
    /// Lines below the title.
    pub subtitle: String,
}

/// All, some and none of it.
const COLOURS: [([u8; 3], &str); 3] = [
    ([0, 158, 115], "complete"),
    ([230, 159, 0], "partly missing"),
    ([190, 30, 45], "missing"),
];
/// A row is at least and at most so high, and so far from the next.
const HEIGHTS: (i32, i32) = (30, 60);
const BETWEEN: i32 = 3;
const WIDEST_NAME: f32 = 340.0;

/// Draws the figure.
pub(crate) fn draw(matrix: &Matrix) -> Result<Figure, Error> {
    let refuse = |reason: String| Error::Chart {
        title: matrix.title.clone(),
        reason,
    };
    let (Some(&first), Some(&last)) = (matrix.times.first(), matrix.times.last()) else {
        return Err(refuse("it has no times".to_owned()));
    };
    if matrix.rows.is_empty() {
        return Err(refuse("it has no rows".to_owned()));
    }
    if let Some((name, row)) = matrix
        .rows
        .iter()
        .find(|(_, row)| row.len() != matrix.times.len())
    {
        return Err(refuse(format!(
            "`{name}` has {} values at {} times",
            row.len(),
            matrix.times.len()
        )));
    }
    let fonts = Fonts::load()?;
    let names: Vec<String> = matrix
        .rows
        .iter()
        .map(|(name, _)| fonts.fit(name, &NUMBER, WIDEST_NAME))
        .collect();
    let widest = names
        .iter()
        .map(|name| fonts.width(name, &NUMBER))
        .fold(0.0f32, f32::max);
    let each = (900 / matrix.rows.len() as i32).clamp(HEIGHTS.0, HEIGHTS.1);
    // A time reaches to the next, the last as far as the one before.
    let step = match matrix.times.as_slice() {
        [.., before, last] => last - before,
        _ => 1,
    };
    let chart = Chart {
        title: &matrix.title,
        subtitle: &matrix.subtitle,
        times: (first, last + step),
        left: widest.ceil() as i32 + 2 * NEAR + TICK,
        height: each * matrix.rows.len() as i32 - BETWEEN,
        foot: FAR / 2 + line(&FOOT) + NEAR,
    };
    chart.draw(&fonts, |canvas, field| {
        for (at, (name, (_, row))) in names.iter().zip(&matrix.rows).enumerate() {
            let top = field.top + each * at as i32;
            let height = each - BETWEEN;
            let place = (
                field.left - TICK - NEAR,
                top + (height + layout::capital(&NUMBER)) / 2,
            );
            canvas.text(name, &NUMBER, place, Align::Right)?;
            let pixels = pixels(matrix, row, &chart);
            let area = Area {
                left: field.left,
                top,
                width: WIDTH,
                height,
            };
            canvas.picture(area, pixels.repeat(height as usize))?;
        }
        let baseline = chart.foot_baseline(field);
        let mut left = field.left;
        for (colour, text) in COLOURS {
            let side = layout::capital(&FOOT);
            let swatch = Area {
                left,
                top: baseline - side,
                width: side,
                height: side,
            };
            canvas.fill(swatch, opaque(colour))?;
            left = swatch.right() + NEAR;
            canvas.text(text, &FOOT, (left, baseline), Align::Left)?;
            left += fonts.width(text, &FOOT).ceil() as i32 + FAR;
        }
        Ok(())
    })
}

/// One row of pixels; one of several times has the colour of the worst.
fn pixels(matrix: &Matrix, row: &[f64], chart: &Chart<'_>) -> Vec<u8> {
    let starts: Vec<i32> = matrix
        .times
        .iter()
        .map(|&time| chart.across(time))
        .collect();
    let mut least = vec![f64::INFINITY; WIDTH as usize];
    for (at, value) in row.iter().enumerate() {
        let start = starts[at].clamp(0, WIDTH - 1);
        let end = starts.get(at + 1).copied().unwrap_or(WIDTH).max(start + 1);
        for pixel in &mut least[start as usize..end.min(WIDTH) as usize] {
            *pixel = pixel.min(*value);
        }
    }
    let colour = |part: &f64| match *part {
        part if part >= 1.0 => COLOURS[0].0,
        part if part > 0.0 => COLOURS[1].0,
        _ => COLOURS[2].0,
    };
    least.iter().flat_map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_seen_however_short() {
        let times: Vec<i64> = (0..10_000).map(|at| at * 3600).collect();
        let mut row = vec![1.0; 10_000];
        row[4321] = 0.0;
        row[8000] = 0.5;
        let matrix = Matrix {
            times,
            rows: vec![("t2m".to_owned(), row.clone())],
            ..Matrix::default()
        };
        let figure = draw(&matrix).unwrap();
        let count = |colour: [u8; 3]| {
            figure
                .rgb
                .chunks(3)
                .filter(|pixel| *pixel == colour)
                .count()
        };
        let swatch = layout::capital(&FOOT).pow(2) as usize;
        assert!(
            count(COLOURS[2].0) >= swatch + 50,
            "{}",
            count(COLOURS[2].0)
        );
        assert!(count(COLOURS[1].0) >= swatch + 50);
        assert!(count(COLOURS[0].0) > 50_000);
    }

    #[test]
    fn matrices_without_sense_are_refused() {
        let matrix = Matrix {
            times: vec![0],
            rows: vec![("a".to_owned(), vec![])],
            ..Matrix::default()
        };
        assert!(matches!(draw(&matrix), Err(Error::Chart { .. })));
        assert!(draw(&Matrix::default()).is_err());
    }
}
