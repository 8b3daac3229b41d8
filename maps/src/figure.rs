//! The figure: everything drawn in its place.

use plotters::backend::{BitMapBackend, RGBPixel};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{BitMapElement, Rectangle};
use plotters::style::{Color, RGBAColor, RGBColor, ShapeStyle};

use crate::axis::Axis;
use crate::colours::{self, Scale};
use crate::field;
use crate::layout::{self, Area, FOOT, LABEL, Layout, NEAR, NUMBER, SUBTITLE, TICK, TITLE};
use crate::text::{Fonts, Style};
use crate::units::range_text;
use crate::{Error, Map, points};

/// Colour of frames and ticks.
pub(crate) const LINE: [u8; 3] = [60, 60, 60];
/// Thickness of frames and ticks.
pub(crate) const THICK: i32 = 2;
/// How much the lines of the grid darken the field.
pub(crate) const GRID_ALPHA: f64 = 0.13;

/// A drawn figure: RGB, row by row.
pub(crate) struct Figure {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

/// Draws the whole figure.
pub(crate) fn draw(map: &Map) -> Result<Figure, Error> {
    if map.values.len() != map.x.len() * map.y.len() {
        return Err(Error::Shape {
            values: map.values.len(),
            rows: map.y.len(),
            columns: map.x.len(),
        });
    }
    let (x, y) = axes(map)?;
    let scale = Scale::of(&map.values, map.range)?;
    compose(map, &x, &y, &scale, |size| {
        field::paint(&map.values, &x, &y, &scale, size)
    })
}

/// Draws the figure of points without a grid: their number is that of the values and of both coordinates.
pub(crate) fn draw_points(map: &Map) -> Result<Figure, Error> {
    if map.values.len() != map.x.len() || map.values.len() != map.y.len() {
        return Err(Error::Points {
            values: map.values.len(),
            x: map.x.len(),
            y: map.y.len(),
        });
    }
    let x = Axis::around(&map.x, &map.x_label, &map.x_units)?;
    let y = Axis::around(&map.y, &map.y_label, &map.y_units)?;
    let scale = Scale::of(&map.values, map.range)?;
    compose(map, &x, &y, &scale, |size| {
        points::paint(map, &x, &y, &scale, size)
    })
}

/// Draws the figure around a field, whose pixels `paint` makes for its size.
fn compose(
    map: &Map,
    x: &Axis,
    y: &Axis,
    scale: &Scale,
    paint: impl FnOnce((u32, u32)) -> Vec<u8>,
) -> Result<Figure, Error> {
    let fonts = Fonts::load()?;
    let layout = Layout::of(map, x, y, scale, &fonts);
    let (width, height) = (layout.width as u32, layout.height as u32);
    let mut rgb = vec![255; width as usize * height as usize * 3];
    {
        let canvas = Canvas {
            area: BitMapBackend::with_buffer(&mut rgb, (width, height)).into_drawing_area(),
            fonts: &fonts,
        };
        canvas.texts(map, &layout)?;
        let field = layout.field;
        canvas.picture(field, paint((field.width as u32, field.height as u32)))?;
        canvas.axes(x, y, &layout)?;
        // Without values there is nothing that a colour could stand for.
        if map.range.is_some() || colours::extremes(&map.values).is_some() {
            canvas.bar(scale, &layout)?;
        }
        canvas.area.present().map_err(failed)?;
    }
    Ok(Figure { width, height, rgb })
}

/// Both axes; a lone row or column is as wide as the cells of the other axis.
fn axes(map: &Map) -> Result<(Axis, Axis), Error> {
    let spacing = |places: &[f64]| match places {
        [first, second, ..] => (second - first).abs(),
        _ => 1.0,
    };
    let x = Axis::new(&map.x, &map.x_label, &map.x_units, spacing(&map.y))?;
    let y = Axis::new(&map.y, &map.y_label, &map.y_units, spacing(&map.x))?;
    Ok((x, y))
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Error {
    Error::Canvas(error.to_string())
}

/// Where a line of text stands relative to its place.
#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Centre,
    Right,
}

pub(crate) struct Canvas<'a> {
    pub(crate) area: DrawingArea<BitMapBackend<'a, RGBPixel>, Shift>,
    pub(crate) fonts: &'a Fonts,
}

impl Canvas<'_> {
    fn texts(&self, map: &Map, layout: &Layout) -> Result<(), Error> {
        let left = layout.text_left;
        self.text(&layout.title.0, &TITLE, (left, layout.title.1), Align::Left)?;
        for (text, baseline) in &layout.subtitle {
            self.text(text, &SUBTITLE, (left, *baseline), Align::Left)?;
        }
        let foot_left = layout.field.left;
        let foot = range_text(colours::extremes(&map.values), &map.units);
        self.text(&foot, &FOOT, (foot_left, layout.foot), Align::Left)?;
        if map.values.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        // What grey means, at the right end of the line.
        let width = self.fonts.width("missing", &FOOT).ceil() as i32;
        let side = layout::capital(&FOOT);
        let after_foot = foot_left + self.fonts.width(&foot, &FOOT).ceil() as i32 + 4 * NEAR;
        let swatch_left = (layout.field.right() - width - NEAR - side).max(after_foot);
        let swatch = Area {
            left: swatch_left,
            top: layout.foot - side,
            width: side,
            height: side,
        };
        self.fill(swatch, opaque(colours::MISSING))?;
        self.text(
            "missing",
            &FOOT,
            (swatch.right() + NEAR, layout.foot),
            Align::Left,
        )
    }

    fn axes(&self, x: &Axis, y: &Axis, layout: &Layout) -> Result<(), Error> {
        let field = layout.field;
        let grid = RGBAColor(0, 0, 0, GRID_ALPHA);
        let number_baseline = field.bottom() + TICK + NEAR + layout::capital(&NUMBER);
        for (value, text) in layout.x_ticks.values.iter().zip(&layout.x_ticks.texts) {
            let at = field.left + along(x.ends(), *value, field.width);
            self.fill(
                Area {
                    left: at,
                    top: field.top,
                    width: 1,
                    height: field.height,
                },
                grid,
            )?;
            let tick = Area {
                left: at - THICK / 2,
                top: field.bottom(),
                width: THICK,
                height: TICK,
            };
            self.fill(tick, opaque(LINE))?;
            self.text(text, &NUMBER, (at, number_baseline), Align::Centre)?;
        }
        for (value, text) in layout.y_ticks.values.iter().zip(&layout.y_ticks.texts) {
            let at = field.bottom() - along(y.ends(), *value, field.height);
            self.fill(
                Area {
                    left: field.left,
                    top: at,
                    width: field.width,
                    height: 1,
                },
                grid,
            )?;
            let tick = Area {
                left: field.left - TICK,
                top: at - THICK / 2,
                width: TICK,
                height: THICK,
            };
            self.fill(tick, opaque(LINE))?;
            let place = (field.left - TICK - NEAR, at + layout::capital(&NUMBER) / 2);
            self.text(text, &NUMBER, place, Align::Right)?;
        }
        self.frame(field)?;
        let x_label = with_factor(&x.label, &layout.x_ticks.factor());
        let x_baseline = number_baseline + NEAR + layout::line(&LABEL);
        let middle = field.left + field.width / 2;
        self.text(&x_label, &LABEL, (middle, x_baseline), Align::Centre)?;
        let y_label = with_factor(&y.label, &layout.y_ticks.factor());
        let y_baseline = field.left - TICK - NEAR - layout.y_numbers - 2 * NEAR;
        self.upright_text(&y_label, &LABEL, (y_baseline, field.top + field.height / 2))
    }

    fn bar(&self, scale: &Scale, layout: &Layout) -> Result<(), Error> {
        let bar = layout.bar;
        let length = if layout.bar_is_upright {
            bar.height
        } else {
            bar.width
        };
        let colour_at = |pixel: i32| {
            let part = (f64::from(pixel) + 0.5) / f64::from(length);
            scale.colour(scale.low + (scale.high - scale.low) * part)
        };
        let mut pixels = Vec::with_capacity(bar.width as usize * bar.height as usize * 3);
        for row in 0..bar.height {
            for column in 0..bar.width {
                let pixel = if layout.bar_is_upright {
                    length - 1 - row
                } else {
                    column
                };
                pixels.extend(colour_at(pixel));
            }
        }
        self.picture(bar, pixels)?;
        self.frame(bar)?;
        let capital = layout::capital(&NUMBER);
        for (value, text) in layout.bar_ticks.values.iter().zip(&layout.bar_ticks.texts) {
            let at = along((scale.low, scale.high), *value, length);
            if layout.bar_is_upright {
                let at = bar.bottom() - at;
                let tick = Area {
                    left: bar.right(),
                    top: at - THICK / 2,
                    width: TICK,
                    height: THICK,
                };
                self.fill(tick, opaque(LINE))?;
                let place = (bar.right() + TICK + NEAR, at + capital / 2);
                self.text(text, &NUMBER, place, Align::Left)?;
            } else {
                let at = bar.left + at;
                let tick = Area {
                    left: at - THICK / 2,
                    top: bar.bottom(),
                    width: THICK,
                    height: TICK,
                };
                self.fill(tick, opaque(LINE))?;
                let place = (at, bar.bottom() + TICK + NEAR + capital);
                self.text(text, &NUMBER, place, Align::Centre)?;
            }
        }
        let place = match layout.bar_is_upright {
            true => (bar.left, bar.top - NEAR - layout::capital(&NUMBER) / 2),
            false => (
                bar.right() + 2 * NEAR,
                bar.top + (bar.height + layout::capital(&LABEL)) / 2,
            ),
        };
        self.text(&layout.bar_label, &LABEL, place, Align::Left)
    }

    pub(crate) fn frame(&self, area: Area) -> Result<(), Error> {
        let outer = Area {
            left: area.left - THICK,
            top: area.top - THICK,
            width: area.width + 2 * THICK,
            height: area.height + 2 * THICK,
        };
        for edge in [
            Area {
                height: THICK,
                ..outer
            },
            Area {
                width: THICK,
                ..outer
            },
            Area {
                top: area.bottom(),
                height: THICK,
                ..outer
            },
            Area {
                left: area.right(),
                width: THICK,
                ..outer
            },
        ] {
            self.fill(edge, opaque(LINE))?;
        }
        Ok(())
    }

    pub(crate) fn picture(&self, area: Area, pixels: Vec<u8>) -> Result<(), Error> {
        let size = (area.width as u32, area.height as u32);
        let element =
            BitMapElement::<_, RGBPixel>::with_owned_buffer((area.left, area.top), size, pixels);
        let element = element.ok_or_else(|| failed("a picture has not the size of its place"))?;
        self.area.draw(&element).map_err(failed)
    }

    pub(crate) fn fill(&self, area: Area, colour: RGBAColor) -> Result<(), Error> {
        let corners = [(area.left, area.top), (area.right(), area.bottom())];
        let style = ShapeStyle::from(colour).filled();
        self.area
            .draw(&Rectangle::new(corners, style))
            .map_err(failed)
    }

    /// A line of text with the foot of its letters at `place`.
    pub(crate) fn text(
        &self,
        text: &str,
        style: &Style,
        place: (i32, i32),
        align: Align,
    ) -> Result<(), Error> {
        let width = self.fonts.width(text, style);
        let shift = match align {
            Align::Left => 0.0,
            Align::Centre => width / 2.0,
            Align::Right => width,
        };
        let left = place.0 - shift.round() as i32;
        self.ink(text, style, |x, y| (left + x, place.1 + y))
    }

    /// A line that is read from below, centred at the height of `place`.
    pub(crate) fn upright_text(
        &self,
        text: &str,
        style: &Style,
        place: (i32, i32),
    ) -> Result<(), Error> {
        let bottom = place.1 + (self.fonts.width(text, style) / 2.0).round() as i32;
        self.ink(text, style, |x, y| (place.0 + y, bottom - x))
    }

    fn ink(
        &self,
        text: &str,
        style: &Style,
        place: impl Fn(i32, i32) -> (i32, i32),
    ) -> Result<(), Error> {
        let [red, green, blue] = style.colour;
        let colour = RGBColor(red, green, blue);
        for (x, y, cover) in self.fonts.ink(text, style) {
            let colour = colour.mix(f64::from(cover.clamp(0.0, 1.0)));
            self.area.draw_pixel(place(x, y), &colour).map_err(failed)?;
        }
        Ok(())
    }
}

/// How many pixels from the low end of an axis a value lies.
pub(crate) fn along((low, high): (f64, f64), value: f64, length: i32) -> i32 {
    ((value - low) / (high - low) * f64::from(length)).round() as i32
}

fn with_factor(label: &str, factor: &str) -> String {
    match factor.is_empty() {
        true => label.to_owned(),
        false => format!("{label} {factor}"),
    }
}

pub(crate) fn opaque([red, green, blue]: [u8; 3]) -> RGBAColor {
    RGBAColor(red, green, blue, 1.0)
}

#[cfg(test)]
mod tests;
