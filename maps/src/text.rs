//! Lines of text with the built-in DejaVu Sans: measured before they are placed, drawn with
//! fractions of a pixel between their letters.

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use crate::Error;

/// The built-in fonts.
pub(crate) struct Fonts {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

/// How a line of text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Style {
    /// Height of its letters from the lowest to the highest, in pixels.
    pub(crate) size: f32,
    /// Bold.
    pub(crate) bold: bool,
    /// Colour.
    pub(crate) colour: [u8; 3],
}

/// A pixel of a letter, relative to the left end of the line at the foot of its letters, and how
/// much of the pixel the letter covers, from 0 to 1.
pub(crate) type Ink = (i32, i32, f32);

impl Fonts {
    /// Reads the built-in fonts.
    pub(crate) fn load() -> Result<Self, Error> {
        let read = |bytes| FontRef::try_from_slice(bytes).map_err(|_| Error::Font);
        Ok(Self {
            regular: read(dejavu::sans::regular())?,
            bold: read(dejavu::sans::bold())?,
        })
    }

    /// Width of a line in pixels.
    pub(crate) fn width(&self, text: &str, style: &Style) -> f32 {
        self.place(text, style).1
    }

    /// The pixels of a line.
    pub(crate) fn ink(&self, text: &str, style: &Style) -> Vec<Ink> {
        let font = self.font(style);
        let mut ink = Vec::new();
        for glyph in self.place(text, style).0 {
            let Some(outline) = font.outline_glyph(glyph) else {
                continue;
            };
            let bounds = outline.px_bounds();
            let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
            outline.draw(|x, y, cover| ink.push((left + x as i32, top + y as i32, cover)));
        }
        ink
    }

    /// The longest beginning of `text` that is not wider than `width`, with an ellipsis if it is
    /// not the whole.
    pub(crate) fn fit(&self, text: &str, style: &Style, width: f32) -> String {
        if self.width(text, style) <= width {
            return text.to_owned();
        }
        let mut kept = text.to_owned();
        while kept.pop().is_some() {
            let shortened = format!("{}…", kept.trim_end());
            if self.width(&shortened, style) <= width {
                return shortened;
            }
        }
        String::new()
    }

    fn font(&self, style: &Style) -> &FontRef<'static> {
        if style.bold {
            &self.bold
        } else {
            &self.regular
        }
    }

    /// The glyphs of a line from left to right, and its width.
    fn place(&self, text: &str, style: &Style) -> (Vec<Glyph>, f32) {
        let font = self.font(style).as_scaled(PxScale::from(style.size));
        let mut glyphs: Vec<Glyph> = Vec::new();
        let mut pen = 0.0;
        for character in text.chars().filter(|c| !c.is_control()) {
            let mut glyph = font.scaled_glyph(character);
            if let Some(previous) = glyphs.last() {
                pen += font.kern(previous.id, glyph.id);
            }
            glyph.position = point(pen, 0.0);
            pen += font.h_advance(glyph.id);
            glyphs.push(glyph);
        }
        (glyphs, pen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style {
        size: 24.0,
        bold: false,
        colour: [0; 3],
    };

    #[test]
    fn letters_stand_between_the_ends_of_their_line() {
        let fonts = Fonts::load().unwrap();
        let width = fonts.width("Hamburg 2 m", &STYLE);
        let ink = fonts.ink("Hamburg 2 m", &STYLE);
        let right = ink.iter().map(|(x, _, _)| *x).max().unwrap();
        assert!(
            (width - 6.0..=width + 1.0).contains(&(right as f32)),
            "{right} {width}"
        );
        assert!(
            ink.iter().all(|(x, y, cover)| *x >= 0
                && (-24..12).contains(y)
                && (0.0..=1.01).contains(cover))
        );
        let bold = Style {
            bold: true,
            ..STYLE
        };
        assert!(fonts.width("Hamburg 2 m", &bold) > width);
    }

    #[test]
    fn every_sign_that_maps_use_is_in_the_fonts() {
        let fonts = Fonts::load().unwrap();
        for sign in "°⁻⁰¹²³⁴⁵⁶⁷⁸⁹×−…·–æøåéµ".chars() {
            for font in [&fonts.regular, &fonts.bold] {
                assert_ne!(font.glyph_id(sign).0, 0, "{sign}");
            }
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let fonts = Fonts::load().unwrap();
        let long = "temperature ".repeat(20);
        let cut = fonts.fit(&long, &STYLE, 200.0);
        assert!(cut.ends_with("e…") || cut.ends_with('…'), "{cut}");
        assert!(fonts.width(&cut, &STYLE) <= 200.0 && cut.len() > 10);
        assert_eq!(fonts.fit("short", &STYLE, 200.0), "short");
        assert_eq!(fonts.fit("short", &STYLE, 1.0), "");
    }
}
