//! Which variables GRIB has a code for.

use std::ffi::CString;

use crate::ffi::{Failure, Handle};
use crate::{Error, Process};

/// Newer tables than the samples', which lack parameters; all libraries from 2.28 on know them.
const TABLES_VERSION: i64 = 28;
/// ECMWF, in whose tables parameters are looked up that the common tables lack.
const ECMWF: i64 = 98;
/// The type of a level that is not there, in GRIB's code table 4.5.
const NO_SURFACE: i64 = 255;

/// How GRIB names a variable: what must be known of each variable before a file is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    name: String,
    param_id: i64,
    short_name: String,
    title: String,
    units: String,
    process: Option<Process>,
    interval: bool,
    has_level: bool,
}

impl Encoding {
    /// The encoding of a variable, named by ECMWF's short name (`2t`) or paramId (`167`).
    ///
    /// A short name can stand for several parameters (`vo` in the ocean and in the air), of which
    /// this is the one that ecCodes takes; a paramId says exactly which.
    ///
    /// # Errors
    /// [`Error::Unencodable`] if ecCodes knows no code for it in GRIB edition 2.
    pub fn of(name: &str) -> Result<Self, Error> {
        let unencodable = |reason: String| Error::Unencodable {
            name: name.to_owned(),
            reason,
        };
        let parameter = Parameter::named(name)
            .ok_or_else(|| unencodable("it is no short name and no paramId".to_owned()))?;
        // A parameter that is defined over an interval has no code as a field of one time.
        let mut reason = String::new();
        for interval in [false, true] {
            match Self::try_of(name, &parameter, interval) {
                Ok(Some(encoding)) => return Ok(encoding),
                Ok(None) => {}
                Err(failure) => reason = failure.to_string(),
            }
        }
        Err(unencodable(format!(
            "ecCodes has no code for it in edition 2 ({})",
            if reason.is_empty() {
                "it takes another parameter for it"
            } else {
                &reason
            }
        )))
    }

    fn try_of(name: &str, parameter: &Parameter, interval: bool) -> Result<Option<Self>, Failure> {
        let mut handle = template(false, interval)?;
        parameter.set(&mut handle)?;
        let param_id = handle.integer(c"paramId")?;
        let short_name = handle.text(c"shortName")?;
        let taken = match parameter {
            Parameter::Id(id) => *id == param_id,
            Parameter::ShortName(name) => name.to_bytes() == short_name.as_bytes(),
        };
        if !taken || param_id == 0 {
            return Ok(None);
        }
        // Newer libraries change the kind of product by themselves.
        let interval = handle.has(c"typeOfStatisticalProcessing");
        let process = match interval {
            true => Process::of_code(handle.integer(c"typeOfStatisticalProcessing")?),
            false => None,
        };
        Ok(Some(Self {
            name: name.to_owned(),
            param_id,
            short_name,
            title: handle.text(c"name")?,
            units: handle.text(c"units")?,
            process,
            interval,
            has_level: parameter.has_level(interval)?,
        }))
    }

    /// The name that was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ECMWF's number of the parameter.
    pub fn param_id(&self) -> i64 {
        self.param_id
    }

    /// The short name, such as `2t`.
    pub fn short_name(&self) -> &str {
        &self.short_name
    }

    /// The long name, such as `2 metre temperature`.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The units that the values must have, such as `K`.
    pub fn units(&self) -> &str {
        &self.units
    }

    /// Whether the variable is only defined over an interval, such as `tp`.
    pub fn needs_interval(&self) -> bool {
        self.interval
    }

    /// What the values are over that interval, if the definition of the variable says it: a sum for `tp`.
    pub fn process(&self) -> Option<Process> {
        self.process
    }

    /// Whether the definition of the variable has its level, as those of `2t` and `msl` have, and that of `t`
    /// has not.
    pub fn has_level(&self) -> bool {
        self.has_level
    }
}

/// A parameter as the library is asked for it.
enum Parameter {
    Id(i64),
    ShortName(CString),
}

impl Parameter {
    fn named(name: &str) -> Option<Self> {
        if let Ok(id) = name.parse() {
            return Some(Self::Id(id));
        }
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        CString::new(name)
            .ok()
            .filter(|_| sound)
            .map(Self::ShortName)
    }

    /// Whether the definition of the parameter has a level: it takes the place of none.
    fn has_level(&self, interval: bool) -> Result<bool, Failure> {
        let mut handle = template(false, interval)?;
        handle.set_integer(c"typeOfFirstFixedSurface", NO_SURFACE)?;
        self.set(&mut handle)?;
        Ok(handle.integer(c"typeOfFirstFixedSurface")? != NO_SURFACE)
    }

    fn set(&self, handle: &mut Handle) -> Result<(), Failure> {
        match self {
            Self::Id(id) => handle.set_integer(c"paramId", *id),
            Self::ShortName(name) => handle.set_text(c"shortName", name),
        }
    }
}

/// A message of edition 2 for a field of an ensemble or not, of one time or of an interval.
pub(crate) fn template(ensemble: bool, interval: bool) -> Result<Handle, Failure> {
    let mut handle = Handle::from_sample(c"GRIB2")?;
    handle.set_integer(c"tablesVersion", TABLES_VERSION)?;
    handle.set_integer(c"centre", ECMWF)?;
    let product = match (ensemble, interval) {
        (false, false) => 0,
        (true, false) => 1,
        (false, true) => 8,
        (true, true) => 11,
    };
    handle.set_integer(c"productDefinitionTemplateNumber", product)?;
    Ok(handle)
}
