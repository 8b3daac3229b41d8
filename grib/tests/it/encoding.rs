//! Which variables can be encoded.

use mlwm_grib::{Encoding, Error, Process};

#[test]
fn the_variables_of_weather_models_have_codes() {
    for (name, param_id, units, interval) in [
        ("2t", 167, "K", false),
        ("10u", 165, "m s**-1", false),
        ("msl", 151, "Pa", false),
        ("t", 130, "K", false),
        ("100v", 228247, "m s**-1", false),
        ("swh", 140229, "m", false),
        ("tp", 228, "m", true),
        ("ssrd", 169, "J m**-2", true),
        ("167", 167, "K", false),
        ("138", 138, "s**-1", false),
    ] {
        let encoding = Encoding::of(name).unwrap();
        assert_eq!(encoding.name(), name);
        assert_eq!(encoding.param_id(), param_id, "{name}");
        assert_eq!(encoding.units(), units, "{name}");
        assert_eq!(encoding.needs_interval(), interval, "{name}");
    }
    assert_eq!(Encoding::of("167").unwrap().short_name(), "2t");
    assert_eq!(Encoding::of("2t").unwrap().title(), "2 metre temperature");
}

#[test]
fn a_code_says_whether_it_has_a_level_and_what_is_done_over_an_interval() {
    for (name, has_level, process) in [
        ("2t", true, None),
        ("msl", true, None),
        ("sp", true, None),
        ("t", false, None),
        ("z", false, None),
        ("tp", true, Some(Process::Accumulation)),
        ("ro", false, Some(Process::Accumulation)),
        ("mx2t6", true, Some(Process::Maximum)),
    ] {
        let encoding = Encoding::of(name).unwrap();
        assert_eq!(encoding.has_level(), has_level, "{name}");
        assert_eq!(encoding.process(), process, "{name}");
    }
}

#[test]
fn what_has_no_code_is_named() {
    for name in [
        "cos_mwd",
        "t_850",
        "",
        "unknown",
        "2t\0",
        "température",
        "999999999",
        "-1",
        "0",
    ] {
        let error = Encoding::of(name).unwrap_err();
        assert!(matches!(&error, Error::Unencodable { name: named, .. } if named == name));
        let start = format!("the variable `{name}` cannot be written as GRIB: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}
