//! What series and matrices have in common: a title above a field with times below it.

use plotters::backend::BitMapBackend;
use plotters::drawing::IntoDrawingArea;
use plotters::style::RGBAColor;

use crate::Error;
use crate::clock;
use crate::figure::{Align, Canvas, Figure, GRID_ALPHA, LINE, THICK, failed, opaque};
use crate::layout::{
    self, Area, FAR, MARGIN, NEAR, NUMBER, SUBTITLE, TICK, TITLE, WIDEST_TEXT, descent, line,
};
use crate::text::Fonts;

/// How wide the field is.
pub(crate) const WIDTH: i32 = 1240;

/// What stands around the field.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// First and last time, in seconds since 1970.
    pub(crate) times: (i64, i64),
    /// How much room is left of the field.
    pub(crate) left: i32,
    pub(crate) height: i32,
    /// How much room is below the numbers of the times.
    pub(crate) foot: i32,
}

impl Chart<'_> {
    /// Draws it; `draw` draws what is in the field, and left of and below it.
    pub(crate) fn draw(
        &self,
        fonts: &Fonts,
        draw: impl FnOnce(&Canvas<'_>, Area) -> Result<(), Error>,
    ) -> Result<Figure, Error> {
        let subtitle: Vec<&str> = self.subtitle.lines().collect();
        let top = MARGIN + line(&TITLE) + line(&SUBTITLE) * subtitle.len() as i32 + FAR / 2;
        let field = Area {
            left: MARGIN + self.left,
            top,
            width: WIDTH,
            height: self.height,
        };
        let below = field.bottom() + TICK + NEAR + line(&NUMBER) + self.foot;
        let (width, height) = ((field.right() + 2 * MARGIN) as u32, (below + MARGIN) as u32);
        let mut rgb = vec![255; width as usize * height as usize * 3];
        {
            let canvas = Canvas {
                area: BitMapBackend::with_buffer(&mut rgb, (width, height)).into_drawing_area(),
                fonts,
            };
            let mut baseline = MARGIN + line(&TITLE) - descent(&TITLE);
            let title = fonts.fit(self.title, &TITLE, WIDEST_TEXT);
            canvas.text(&title, &TITLE, (field.left, baseline), Align::Left)?;
            for text in subtitle {
                baseline += line(&SUBTITLE);
                let text = fonts.fit(text.trim(), &SUBTITLE, WIDEST_TEXT);
                canvas.text(&text, &SUBTITLE, (field.left, baseline), Align::Left)?;
            }
            draw(&canvas, field)?;
            self.time_axis(&canvas, field)?;
            canvas.frame(field)?;
            canvas.area.present().map_err(failed)?;
        }
        Ok(Figure { width, height, rgb })
    }

    fn time_axis(&self, canvas: &Canvas<'_>, field: Area) -> Result<(), Error> {
        let (first, last) = self.times;
        let baseline = field.bottom() + TICK + NEAR + layout::capital(&NUMBER);
        for (time, text) in clock::ticks(first, last, 7) {
            let at = field.left + self.across(time);
            let rule = Area {
                left: at,
                top: field.top,
                width: 1,
                height: field.height,
            };
            canvas.fill(rule, RGBAColor(0, 0, 0, GRID_ALPHA))?;
            let tick = Area {
                left: at - THICK / 2,
                top: field.bottom(),
                width: THICK,
                height: TICK,
            };
            canvas.fill(tick, opaque(LINE))?;
            canvas.text(&text, &NUMBER, (at, baseline), Align::Centre)?;
        }
        Ok(())
    }

    /// How many pixels from the left end of the field a time is.
    pub(crate) fn across(&self, time: i64) -> i32 {
        let (first, last) = self.times;
        if last == first {
            return WIDTH / 2;
        }
        ((time - first) as f64 / (last - first) as f64 * f64::from(WIDTH)).round() as i32
    }

    /// Where the line at the foot stands.
    pub(crate) fn foot_baseline(&self, field: Area) -> i32 {
        field.bottom() + TICK + NEAR + line(&NUMBER) + self.foot - NEAR
    }
}
