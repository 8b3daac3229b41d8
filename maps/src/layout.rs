//! Where everything stands on the figure, in pixels from its upper left corner.

use crate::Map;
use crate::axis::Axis;
use crate::colours::Scale;
use crate::text::{Fonts, Style};
use crate::ticks::Ticks;
use crate::units;

const INK: [u8; 3] = [34, 34, 34];
const GREY: [u8; 3] = [96, 96, 96];

/// The title.
pub(crate) const TITLE: Style = Style {
    size: 42.0,
    bold: true,
    colour: INK,
};
/// The lines below it.
pub(crate) const SUBTITLE: Style = Style {
    size: 27.0,
    bold: false,
    colour: GREY,
};
/// Names of axes, units of the colour bar.
pub(crate) const LABEL: Style = Style {
    size: 28.0,
    bold: false,
    colour: INK,
};
/// Numbers at ticks.
pub(crate) const NUMBER: Style = Style {
    size: 26.0,
    bold: false,
    colour: INK,
};
/// The line at the foot.
pub(crate) const FOOT: Style = Style {
    size: 24.0,
    bold: false,
    colour: GREY,
};

/// Length of a tick.
pub(crate) const TICK: i32 = 8;
/// Between a tick and its number, and between other things that belong together.
pub(crate) const NEAR: i32 = 9;
/// Between things that do not.
pub(crate) const FAR: i32 = 40;
/// Around everything.
pub(crate) const MARGIN: i32 = 44;

/// The field fits into this.
const LARGEST_FIELD: (f64, f64) = (1120.0, 980.0);
/// An elongated field is stretched until its short side has this length.
const SHORTEST_SIDE: f64 = 150.0;
/// No line of text makes the figure wider.
pub(crate) const WIDEST_TEXT: f32 = 1400.0;

/// Thickness of the colour bar.
const BAR: i32 = 34;

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
}

impl Area {
    pub(crate) fn right(&self) -> i32 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> i32 {
        self.top + self.height
    }
}

/// Where everything stands.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) width: i32,
    pub(crate) height: i32,
    /// Left end of title, subtitle and foot.
    pub(crate) text_left: i32,
    /// The title, its baseline, and the lines below it with theirs.
    pub(crate) title: (String, i32),
    pub(crate) subtitle: Vec<(String, i32)>,
    pub(crate) field: Area,
    pub(crate) x_ticks: Ticks,
    pub(crate) y_ticks: Ticks,
    /// Right end of the y axis' numbers is left of the field; their widest is so wide.
    pub(crate) y_numbers: i32,
    pub(crate) bar: Area,
    pub(crate) bar_ticks: Ticks,
    /// Units and power of ten of the colour bar.
    pub(crate) bar_label: String,
    /// The bar stands beside the field; else it lies below.
    pub(crate) bar_is_upright: bool,
    /// Baseline of the line at the foot.
    pub(crate) foot: i32,
}

impl Layout {
    pub(crate) fn of(map: &Map, x: &Axis, y: &Axis, scale: &Scale, fonts: &Fonts) -> Self {
        let (field_width, field_height) = field_size(x, y);
        let bar_is_upright = field_height >= 320 && field_width <= 2 * field_height;
        let x_ticks = x.ticks((field_width / 200).clamp(2, 6) as usize);
        let y_ticks = y.ticks((field_height / 140).clamp(2, 7) as usize);
        let bar_length = if bar_is_upright {
            field_height
        } else {
            field_width
        };
        let bar_count = if bar_is_upright {
            bar_length / 120
        } else {
            bar_length / 190
        };
        let bar_ticks = Ticks::between(scale.low, scale.high, bar_count.clamp(2, 8) as usize);
        let bar_label = label_of(&bar_ticks, &units::typeset(&map.units));

        let widest = |ticks: &Ticks| {
            let widths = ticks.texts.iter().map(|text| fonts.width(text, &NUMBER));
            widths.fold(0.0f32, f32::max).ceil() as i32
        };
        let label_width = fonts.width(&bar_label, &LABEL).ceil() as i32;
        let y_numbers = widest(&y_ticks);
        let left = MARGIN + line(&LABEL) + NEAR + y_numbers + NEAR + TICK;
        let right = match bar_is_upright {
            true => FAR + (BAR + TICK + NEAR + widest(&bar_ticks)).max(label_width) + MARGIN,
            false => (2 * NEAR + label_width).max(widest(&x_ticks) / 2) + MARGIN,
        };

        let title = fonts.fit(&heading(map), &TITLE, WIDEST_TEXT);
        let subtitle: Vec<String> = map
            .subtitle
            .lines()
            .map(|line| fonts.fit(line.trim(), &SUBTITLE, WIDEST_TEXT))
            .collect();
        let texts = subtitle.iter().map(|line| fonts.width(line, &SUBTITLE));
        let text_width = texts.fold(fonts.width(&title, &TITLE), f32::max).ceil() as i32;
        let width = (left + field_width + right).max(text_width + 2 * MARGIN);
        // What the text has made too wide is shared by both sides.
        let left = left + (width - left - field_width - right) / 2;
        let text_left = if left + text_width + MARGIN <= width {
            left
        } else {
            MARGIN
        };

        let mut top = MARGIN;
        let mut next_baseline = |style: &Style| {
            top += line(style);
            top - descent(style)
        };
        let title_baseline = next_baseline(&TITLE);
        let subtitle = subtitle
            .into_iter()
            .map(|text| (text, next_baseline(&SUBTITLE)))
            .collect();
        top += FAR / 2;
        if bar_is_upright && !bar_label.is_empty() {
            top += line(&LABEL) * 3 / 4;
        }
        let field = Area {
            left,
            top,
            width: field_width,
            height: field_height,
        };
        let below_axis = field.bottom() + TICK + NEAR + line(&NUMBER) + NEAR + line(&LABEL);
        let bar = match bar_is_upright {
            true => Area {
                left: field.right() + FAR,
                top,
                width: BAR,
                height: field.height,
            },
            false => Area {
                left,
                top: below_axis + FAR / 2,
                width: field.width,
                height: BAR,
            },
        };
        let below_bar = match bar_is_upright {
            true => below_axis,
            false => bar.bottom() + TICK + NEAR + line(&NUMBER),
        };
        let foot_top = below_bar + FAR / 2;
        Self {
            width,
            height: foot_top + line(&FOOT) + MARGIN,
            text_left,
            title: (title, title_baseline),
            subtitle,
            field,
            x_ticks,
            y_ticks,
            y_numbers,
            bar,
            bar_ticks,
            bar_label,
            bar_is_upright,
            foot: foot_top + line(&FOOT) - descent(&FOOT),
        }
    }
}

/// Height of a line of text.
pub(crate) fn line(style: &Style) -> i32 {
    (style.size * 1.2).round() as i32
}

/// From the foot of the letters to the bottom of the line.
pub(crate) fn descent(style: &Style) -> i32 {
    (style.size * 0.3).round() as i32
}

/// Height of capitals and digits.
pub(crate) fn capital(style: &Style) -> i32 {
    (style.size * 0.626).round() as i32
}

/// `label [×10⁵ units]`, whatever of it there is.
pub(crate) fn label_of(ticks: &Ticks, units: &str) -> String {
    let parts = [ticks.factor(), units.to_owned()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

fn heading(map: &Map) -> String {
    let units = units::typeset(&map.units);
    match units.is_empty() {
        true => map.title.clone(),
        false => format!("{} [{units}]", map.title),
    }
}

/// The size of the field: the same scale on both axes, except where one side would be too short to
/// see. Degrees of longitude are as long as they are in the middle of the map.
fn field_size(x: &Axis, y: &Axis) -> (i32, i32) {
    let narrowing = match x.is_geographic() && y.is_geographic() {
        true => {
            let (south, north) = y.ends();
            ((south + north) / 2.0).to_radians().cos().max(0.2)
        }
        false => 1.0,
    };
    let (largest_width, largest_height) = LARGEST_FIELD;
    let ratio = x.length() * narrowing / y.length();
    let scaled = match ratio > largest_width / largest_height {
        true => (largest_width, largest_width / ratio),
        false => (largest_height * ratio, largest_height),
    };
    let side = |length: f64| length.max(SHORTEST_SIDE).round() as i32;
    (side(scaled.0), side(scaled.1))
}
