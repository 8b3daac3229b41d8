//! scratch
use mlwm_maps::*;
fn main() {
    for input in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&input).unwrap();
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap().to_owned();
        let nums = |s: String| {
            s.split_whitespace()
                .map(|v| v.parse::<f64>().unwrap())
                .collect::<Vec<_>>()
        };
        let (title, units, subtitle, xl, xu, yl, yu) = (
            next(),
            next(),
            next().replace("|", "\n"),
            next(),
            next(),
            next(),
            next(),
        );
        let (x, y, values) = (nums(next()), nums(next()), nums(next()));
        let map = Map {
            values,
            x,
            y,
            x_label: xl,
            x_units: xu,
            y_label: yl,
            y_units: yu,
            title,
            units,
            subtitle,
            range: None,
        };
        let t = std::time::Instant::now();
        draw(&map, std::path::Path::new(&format!("{input}.png"))).unwrap();
        println!("{input} {:?}", t.elapsed());
    }
}
