use std::fs;

use super::*;

/// A map of 4 rows and 5 columns of 10 km, with different values everywhere.
fn temperature() -> Map {
    Map {
        values: (0..20).map(|at| 270.0 + f64::from(at)).collect(),
        x: (0..5).map(|at| -1e6 + 1e4 * f64::from(at)).collect(),
        y: (0..4).map(|at| -4e5 + 1e4 * f64::from(at)).collect(),
        x_label: "x".into(),
        y_label: "y".into(),
        x_units: "m".into(),
        y_units: "m".into(),
        title: "2 metre temperature".into(),
        subtitle: "graph_lam · analysis 2022-04-07 03:00 UTC\nvalid 2022-04-07 06:00 UTC".into(),
        units: "K".into(),
        range: None,
    }
}

fn layout_of(map: &Map) -> (Layout, Scale) {
    let (x, y) = axes(map).unwrap();
    let scale = Scale::of(&map.values, map.range).unwrap();
    let layout = Layout::of(map, &x, &y, &scale, &Fonts::load().unwrap());
    (layout, scale)
}

fn pixel(figure: &Figure, x: i32, y: i32) -> [u8; 3] {
    let at = (y as usize * figure.width as usize + x as usize) * 3;
    figure.rgb[at..at + 3].try_into().unwrap()
}

fn near(one: [u8; 3], other: [u8; 3]) -> bool {
    one.iter()
        .zip(other)
        .all(|(one, other)| one.abs_diff(other) <= 3)
}

/// A pixel off the middle of the cell in this row and column, rising from the lower left, where no
/// line of the grid passes.
fn cell(figure: &Figure, map: &Map, area: Area, row: usize, column: usize) -> [u8; 3] {
    let x = area.left + (area.width as f64 * (column as f64 + 0.3) / map.x.len() as f64) as i32;
    let y = area.bottom() - (area.height as f64 * (row as f64 + 0.3) / map.y.len() as f64) as i32;
    pixel(figure, x, y)
}

/// The colour that the bar shows for a value.
fn on_bar(figure: &Figure, layout: &Layout, scale: &Scale, value: f64) -> [u8; 3] {
    let part = (value - scale.low) / (scale.high - scale.low);
    let bar = layout.bar;
    match layout.bar_is_upright {
        true => {
            let up = (part * f64::from(bar.height)) as i32;
            pixel(
                figure,
                bar.left + bar.width / 2,
                (bar.bottom() - 1 - up).max(bar.top),
            )
        }
        false => {
            let along = (part * f64::from(bar.width)) as i32;
            pixel(
                figure,
                (bar.left + along).min(bar.right() - 1),
                bar.top + bar.height / 2,
            )
        }
    }
}

fn check_against_bar(map: &Map) {
    let figure = draw(map).unwrap();
    let (layout, scale) = layout_of(map);
    for row in 0..map.y.len() {
        for column in 0..map.x.len() {
            let value = map.values[row * map.x.len() + column];
            let drawn = cell(&figure, map, layout.field, row, column);
            let shown = on_bar(&figure, &layout, &scale, value);
            assert!(near(drawn, shown), "{row} {column}: {drawn:?} {shown:?}");
        }
    }
}

#[test]
fn every_cell_has_the_colour_that_the_bar_shows_for_its_value() {
    let map = temperature();
    check_against_bar(&map);
    let wind = Map {
        values: map.values.iter().map(|value| value - 282.0).collect(),
        ..map.clone()
    };
    check_against_bar(&wind);
    let shared = Map {
        range: Some((250.0, 300.0)),
        ..map.clone()
    };
    check_against_bar(&shared);
    let wide = Map {
        y: map.y.iter().map(|y| y / 20.0).collect(),
        ..map
    };
    assert!(!layout_of(&wide).0.bar_is_upright);
    check_against_bar(&wide);
}

#[test]
fn the_order_of_storage_does_not_change_the_map() {
    let map = temperature();
    let mut rows: Vec<&[f64]> = map.values.chunks(5).collect();
    rows.reverse();
    let from_north = Map {
        values: rows.concat(),
        y: map.y.iter().rev().copied().collect(),
        ..map.clone()
    };
    assert!(draw(&from_north).unwrap().rgb == draw(&map).unwrap().rgb);
    let from_east = Map {
        values: map
            .values
            .chunks(5)
            .flat_map(|row| row.iter().rev().copied())
            .collect(),
        x: map.x.iter().rev().copied().collect(),
        ..map.clone()
    };
    assert!(draw(&from_east).unwrap().rgb == draw(&map).unwrap().rgb);
}

#[test]
fn missing_values_are_grey_and_explained() {
    let mut map = temperature();
    map.values[7] = f64::NAN;
    let figure = draw(&map).unwrap();
    let (layout, _) = layout_of(&map);
    assert_eq!(cell(&figure, &map, layout.field, 1, 2), colours::MISSING);
    assert_ne!(cell(&figure, &map, layout.field, 1, 3), colours::MISSING);
    let has_swatch = |figure: &Figure| {
        let rows = layout.foot - layout::capital(&FOOT)..layout.foot;
        let right_half = layout.width / 2..layout.width;
        rows.flat_map(|y| right_half.clone().map(move |x| (x, y)))
            .filter(|(x, y)| pixel(figure, *x, *y) == colours::MISSING)
            .count()
            > 100
    };
    assert!(has_swatch(&figure));
    assert!(!has_swatch(&draw(&temperature()).unwrap()));
}

#[test]
fn both_axes_have_the_same_scale() {
    let (layout, _) = layout_of(&temperature());
    let (per_column, per_row) = (
        layout.field.width as f64 / 5.0,
        layout.field.height as f64 / 4.0,
    );
    assert!(
        (per_column / per_row - 1.0).abs() < 0.01,
        "{per_column} {per_row}"
    );
    let degrees = Map {
        x: (0..5).map(f64::from).collect(),
        y: (58..62).map(f64::from).collect(),
        x_units: "degrees_east".into(),
        y_units: "degrees_north".into(),
        ..temperature()
    };
    let (layout, _) = layout_of(&degrees);
    let ratio = (layout.field.width as f64 / 5.0) / (layout.field.height as f64 / 4.0);
    assert!((ratio - 59.5f64.to_radians().cos()).abs() < 0.01, "{ratio}");
}

#[test]
fn everything_stands_on_the_figure() {
    let long = "a very long name ".repeat(20);
    for (columns, rows) in [
        (1, 1),
        (1, 300),
        (300, 1),
        (2, 2),
        (1000, 3),
        (3, 1000),
        (700, 600),
    ] {
        let map = Map {
            values: (0..columns * rows).map(f64::from).collect(),
            x: (0..columns).map(f64::from).collect(),
            y: (0..rows).map(f64::from).collect(),
            title: long.clone(),
            subtitle: long.clone(),
            ..temperature()
        };
        let figure = draw(&map).unwrap();
        assert!((400..2200).contains(&figure.width) && (300..1800).contains(&figure.height));
        // A white margin all around: nothing was cut off.
        let (right, bottom) = (figure.width as i32 - 1, figure.height as i32 - 1);
        let edge = (0..=right).flat_map(|x| [(x, 3), (x, bottom - 3)]);
        let edge = edge.chain((0..=bottom).flat_map(|y| [(3, y), (right - 3, y)]));
        for (x, y) in edge {
            assert_eq!(
                pixel(&figure, x, y),
                [255; 3],
                "{columns}x{rows} at {x},{y}"
            );
        }
    }
}

#[test]
fn constant_and_empty_fields_are_drawn() {
    for value in [0.0, 273.15, -1.0, f64::NAN, 1e300, f64::INFINITY] {
        let map = Map {
            values: vec![value; 20],
            ..temperature()
        };
        let figure = draw(&map).unwrap();
        let (layout, scale) = layout_of(&map);
        assert_eq!(cell(&figure, &map, layout.field, 2, 2), scale.colour(value));
    }
}

#[test]
fn the_file_is_a_png_of_the_right_size_and_always_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t2m.png");
    let map = temperature();
    crate::draw(&map, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes == crate::encode(&map).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let mut reader = ::png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    let (layout, _) = layout_of(&map);
    assert_eq!(
        (info.width as i32, info.height as i32),
        (layout.width, layout.height)
    );
    assert_eq!(info.color_type, ::png::ColorType::Rgb);
    let title = &reader.info().utf8_text[0];
    assert_eq!(title.get_text().unwrap(), "2 metre temperature");
    assert!(rgb == draw(&map).unwrap().rgb);
}

#[test]
fn what_cannot_be_drawn_is_told() {
    let map = Map {
        values: vec![0.0; 19],
        ..temperature()
    };
    assert!(matches!(
        draw(&map),
        Err(Error::Shape {
            values: 19,
            rows: 4,
            columns: 5
        })
    ));
    let mut map = temperature();
    map.x[2] = map.x[1];
    let error = draw(&map).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.starts_with("the coordinates of `x` neither rise nor fall"),
        "{error}"
    );
    let map = Map {
        range: Some((1.0, 0.0)),
        ..temperature()
    };
    assert!(matches!(draw(&map), Err(Error::Range { .. })));

    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("missing/t2m.png");
    let error = crate::draw(&temperature(), &nowhere).unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if *path == nowhere));
    let taken = folder.path().join("folder.png");
    fs::create_dir_all(taken.join("full")).unwrap();
    assert!(crate::draw(&temperature(), &taken).is_err());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no partial file is left"
    );
}
