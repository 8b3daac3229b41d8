//! Any field that is written is read as the same.

use jiff::{SignedDuration, Timestamp};
use mlwm_grib::{
    Encoding, Field, Forecast, Grid, Level, Member, Method, Packing, Process, Reader,
    ReducedGaussian, Scanning, Span, Writer,
};
use proptest::prelude::*;

use crate::writing::regular;

fn grid() -> impl Strategy<Value = Grid> {
    let scanning = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(i_negative, j_positive, j_consecutive, alternating)| Scanning {
            i_negative,
            j_positive,
            j_consecutive,
            alternating,
        },
    );
    let reduced = prop::collection::vec(4_u32..40, 1..12).prop_map(|north| {
        let all = north.iter().chain(north.iter().rev()).copied().collect();
        Grid::ReducedGaussian(ReducedGaussian::new(all).unwrap())
    });
    prop_oneof![
        scanning.prop_map(regular),
        reduced,
        (1_u32..12).prop_map(|n| Grid::ReducedGaussian(ReducedGaussian::octahedral(n))),
    ]
}

fn forecast() -> impl Strategy<Value = Forecast> {
    let member = prop::option::of((0_u32..=254, 0_u32..=254))
        .prop_map(|member| member.map(|(number, count)| Member { number, count }));
    let packing = (any::<bool>(), 1_u32..=25).prop_map(|(simple, bits_per_value)| Packing {
        method: if simple {
            Method::Simple
        } else {
            Method::Ccsds
        },
        bits_per_value,
    });
    // From 1950 to 2100, in hours.
    (grid(), member, packing, -175_000_i64..1_139_000).prop_map(|(grid, member, packing, hours)| {
        Forecast {
            analysis_time: Timestamp::from_second(hours * 3600).unwrap(),
            member,
            grid,
            packing,
        }
    })
}

/// Parameter, level and span of a field.
fn what() -> impl Strategy<Value = (&'static str, Option<Level>, Span)> {
    let instant = (0_u32..1200).prop_map(Span::Instant);
    let interval = (0_u32..1200, 1_u32..240).prop_map(|(start, length)| Span::Interval {
        process: Process::Accumulation,
        start,
        end: start + length,
    });
    prop_oneof![
        (
            prop::sample::select(vec!["2t", "msl", "10v", "sp", "lsm"]),
            instant.clone()
        )
            .prop_map(|(name, span)| (name, None, span)),
        (prop::sample::select(vec!["tp", "ssrd", "sf"]), interval)
            .prop_map(|(name, span)| (name, None, span)),
        (
            prop::sample::select(vec!["t", "z", "u"]),
            1_u32..1000,
            instant
        )
            .prop_map(|(name, level, span)| (
                name,
                Some(Level::at("isobaricInhPa", level.into())),
                span
            )),
    ]
}

/// A value for each of so many points: some missing, of any usual magnitude.
fn values(points: usize) -> impl Strategy<Value = Vec<f32>> {
    let magnitude = prop::sample::select(vec![1e-12_f32, 1e-3, 1.0, 300.0, 1e5, 1e9]);
    let value = prop_oneof![
        9 => (-1.0_f32..1.0).boxed(),
        1 => prop_oneof![Just(f32::NAN), Just(0.0)].boxed(),
    ];
    (magnitude, prop::collection::vec(value, points))
        .prop_map(|(magnitude, values)| values.into_iter().map(|value| value * magnitude).collect())
}

fn case() -> impl Strategy<Value = (Forecast, (&'static str, Option<Level>, Span), Vec<f32>)> {
    (forecast(), what()).prop_flat_map(|(forecast, what)| {
        let points = forecast.grid.points();
        (Just(forecast), Just(what), values(points))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read((forecast, (name, level, span), values) in case()) {
        let field = Field {
            encoding: Encoding::of(name).unwrap(),
            level,
            span,
            values,
        };
        let mut writer = Writer::new(forecast.clone()).unwrap();
        let bytes = writer.message(&field).unwrap();
        prop_assert_eq!(&bytes, &writer.message(&field).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("field.grib");
        std::fs::write(&path, bytes).unwrap();
        let mut items: Vec<_> = Reader::open(&path).unwrap().collect();
        prop_assert_eq!(items.len(), 1);
        let mut message = items.remove(0).unwrap();

        let hours = |hours: u32| SignedDuration::from_hours(hours.into());
        let header = message.header().clone();
        prop_assert_eq!(&header.short_name, name);
        prop_assert_eq!(header.reference_time, forecast.analysis_time);
        prop_assert_eq!(header.end_step, hours(span.lead_time()));
        prop_assert_eq!(header.validity_time, forecast.analysis_time + hours(span.lead_time()));
        prop_assert_eq!(header.member, forecast.member.map(|member| member.number));
        prop_assert_eq!(message.grid().unwrap(), &forecast.grid);
        if let Some(level) = &field.level {
            prop_assert_eq!(&header.level, level);
        }
        let error = message.packing_error().unwrap();
        let least = field.values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = field.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // GRIB keeps the least value in single precision, rounded down.
        let rounding = f64::from(least.abs().max(most.abs())) * 2.4e-7;
        for (read, &written) in message.values().unwrap().iter().zip(&field.values) {
            prop_assert_eq!(read.is_nan(), written.is_nan());
            let off = (read - f64::from(written)).abs();
            prop_assert!(written.is_nan() || off <= error + rounding, "{read} {written} {error}");
        }
    }
}
