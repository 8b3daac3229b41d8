//! What differs between two folders of GRIB files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use mlwm_grib::{Header, Message, Reader};

use crate::Error;
use crate::replay::Difference;
use crate::scratch::failed;

/// The parameters that have other values in the files of one folder than in those of the other, of which each was
/// written field by field in the same order.
pub(crate) fn compare(published: &Path, again: &Path) -> Result<Vec<Difference>, Error> {
    let mut found = BTreeMap::new();
    for name in names(published)?.union(&names(again)?) {
        let (mut one, mut other) = (open(&published.join(name))?, open(&again.join(name))?);
        loop {
            let (a, b) = (next(&mut one)?, next(&mut other)?);
            let Some(message) = a.as_ref().or(b.as_ref()) else {
                break;
            };
            let parameter = parameter(message.header());
            let difference = found
                .entry(parameter.clone())
                .or_insert_with(|| Difference::none(&parameter));
            match (a, b) {
                (Some(a), Some(b)) => add(difference, a, b)?,
                (_, None) => difference.why_not = Some("it was not made again".to_owned()),
                (None, _) => difference.why_not = Some("it was not published".to_owned()),
            }
        }
    }
    let found = found.into_values();
    Ok(found.filter(Difference::is_one).collect())
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Result<BTreeSet<OsString>, Error> {
    let entries = fs::read_dir(folder).map_err(|source| failed(folder, source))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    names
        .collect::<Result<_, _>>()
        .map_err(|source| failed(folder, source))
}

/// The messages of a file, if it is there.
fn open(path: &Path) -> Result<Option<Reader>, Error> {
    Ok(match path.exists() {
        true => Some(Reader::open(path)?),
        false => None,
    })
}

fn next(reader: &mut Option<Reader>) -> Result<Option<Message>, Error> {
    Ok(reader.as_mut().and_then(Iterator::next).transpose()?)
}

/// What people call a field, whatever its step: `t 850 isobaricInhPa`.
fn parameter(header: &Header) -> String {
    let level = &header.level;
    format!("{} {} {}", header.short_name, level.value, level.kind)
}

fn add(difference: &mut Difference, mut one: Message, mut other: Message) -> Result<(), Error> {
    let (a, b) = (one.header(), other.header());
    let is_same = |a: &Header, b: &Header| parameter(a) == parameter(b) && a.end_step == b.end_step;
    if !is_same(a, b) || a.points != b.points {
        difference.why_not = Some("its fields are others, or in another order".to_owned());
        return Ok(());
    }
    difference.values += a.points as u64;
    let (one, other) = (one.values()?, other.values()?);
    for (a, b) in one.into_iter().zip(other) {
        difference.add(a, b);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mlwm_grib::window::{Window, WindowFile};
    use mlwm_grib::{Encoding, Field, Forecast, Grid, Method, Packing, ReducedGaussian, Span};

    use super::*;

    /// Writes fields of 2t with these values at their first point, one for each step of 6 h.
    fn write(folder: &Path, prefix: &str, first: &[f32]) {
        let grid = Grid::ReducedGaussian(ReducedGaussian::octahedral(8));
        let points = grid.points();
        let forecast = Forecast {
            analysis_time: Timestamp::UNIX_EPOCH,
            member: None,
            grid,
            packing: Packing {
                method: Method::Simple,
                bits_per_value: 24,
            },
        };
        let window = Window { start: 0, end: 24 };
        let mut file = WindowFile::create(folder, prefix, forecast, window).unwrap();
        for (step, first) in (1..).zip(first) {
            let mut values: Vec<f32> = (0..points).map(|point| (point % 7) as f32).collect();
            values[0] = *first;
            file.push(&Field {
                encoding: Encoding::of("2t").unwrap(),
                level: None,
                span: Span::Instant(6 * step),
                values,
            })
            .unwrap();
        }
        file.finish().unwrap();
    }

    #[test]
    fn values_that_differ_are_counted_and_fields_that_are_not_there_are_named() {
        let [one, other] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        write(one.path(), "a", &[0.0, 1.0]);
        write(other.path(), "a", &[0.0, 3.0]);
        let found = compare(one.path(), other.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].variable, "2t 2 heightAboveGround");
        assert_eq!(found[0].values, 2 * 544);
        assert_eq!((found[0].different, found[0].largest), (1, 2.0));
        assert_eq!(compare(one.path(), one.path()).unwrap(), []);
        write(other.path(), "a", &[0.0]);
        let found = compare(one.path(), other.path()).unwrap();
        assert_eq!(found[0].why_not.as_deref(), Some("it was not made again"));
        write(other.path(), "a", &[0.0, 1.0]);
        write(other.path(), "b", &[0.0]);
        let found = compare(one.path(), other.path()).unwrap();
        assert_eq!(found[0].why_not.as_deref(), Some("it was not published"));
    }
}
