//! The place of a dataset as a URI: from the parts of a dataset path, or from a template.

use super::{Input, Output, UriArgs};
use crate::AnalysisTime;
use crate::dataset_path::{DatasetPath, InvalidDatasetPath};

/// What stands for the analysis time in a template.
const ANALYSIS_TIME: &str = "analysis_time";

/// What stands for the ensemble member in a template.
const MEMBER: &str = "member";

/// What the path of a folder or file relative to the current folder starts with.
const RELATIVE: &str = "./";

/// Kinds of stores.
const SCHEMES: [&str; 3] = ["s3", "gs", "file"];

/// A place that cannot be written as a URI.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UriError {
    /// Neither `uri_args` nor `uri`.
    #[error("the dataset has no place: give either `uri_args` or `uri`")]
    Missing,
    /// Both.
    #[error("the dataset has both `uri_args` and `uri`: keep one")]
    Both,
    /// A placeholder that means nothing.
    #[error("`{{{0}}}` is not a known placeholder: there are {{analysis_time}} and {{member}}")]
    Placeholder(String),
    /// A placeholder with a form that mlwm does not write.
    #[error(
        "`{{{0}}}` has a form that mlwm does not know: write a member with leading zeros as {{member:03}}, and a time with %Y, %m, %d, %H and %M as {{analysis_time:%Y%m%d%H}}"
    )]
    Form(String),
    /// A brace without its other half.
    #[error("`{0}` has a brace without its other half: write {{analysis_time}} and {{member}}")]
    Brace(String),
    /// No scheme, or an unknown one.
    #[error(
        "`{0}` is not a URI that mlwm can reach: start it with s3://, gs:// or file://, or with ./ for a local path"
    )]
    Scheme(String),
    /// A bucket that is missing, or a file that has no absolute path.
    #[error(
        "`{0}` names no bucket or folder: write s3://bucket/path, gs://bucket/path or file:///path"
    )]
    Authority(String),
    /// A path that climbs, or characters that change the meaning of a URI.
    #[error(
        "`{0}` holds `..`, `?`, `#`, `%`, `\\`, white space or control characters: write the place plainly"
    )]
    Characters(String),
    /// Credentials.
    #[error(
        "a URI with a user or password would be recorded with every forecast: give credentials by the environment of mlwm"
    )]
    Credentials,
    /// A bare bucket name that is none.
    #[error(
        "`{0}` is not the name of a bucket: use lower-case letters, digits, `-`, `_` and `.`, or write a base URI s3://…, gs://… or file:///…"
    )]
    Bucket(String),
    /// Parts that do not make a dataset path.
    #[error(transparent)]
    Path(#[from] InvalidDatasetPath),
}

impl Input {
    /// The URI of this input for one analysis time and member.
    pub fn uri(&self, analysis_time: AnalysisTime, member: u32) -> Result<String, UriError> {
        resolve(
            self.uri_args.as_ref(),
            self.uri.as_deref(),
            analysis_time,
            member,
        )
    }

    /// The form in which its place has the analysis time, for [`AnalysisTime::formatted`]: of several, one
    /// after the other. `None` if its place is the same at all times.
    pub fn dated(&self) -> Option<String> {
        match &self.uri {
            Some(template) => form_of_time(template),
            None => Some(AnalysisTime::PATH_FORM.to_owned()),
        }
    }
}

impl Output {
    /// The URI at which this output of one analysis time and member is published.
    pub fn uri(&self, analysis_time: AnalysisTime, member: u32) -> Result<String, UriError> {
        resolve(
            self.uri_args.as_ref(),
            self.uri.as_deref(),
            analysis_time,
            member,
        )
    }

    /// The URI of the deepest folder below which it is published at any analysis time and for any
    /// member.
    pub fn root(&self) -> Result<String, UriError> {
        if let Some(template) = self.uri.as_deref().filter(|_| self.uri_args.is_none()) {
            let fixed = template.split('{').next().unwrap_or_default();
            let folder = fixed.rfind('/').map(|at| &fixed[..at]);
            let folder = folder.ok_or_else(|| UriError::Scheme(template.to_owned()))?;
            return match folder == "." {
                true => Ok(folder.to_owned()),
                false => check(&format!("{folder}/x")).map(|()| folder.to_owned()),
            };
        }
        // In none of its digits is this time like the first.
        let other =
            AnalysisTime::from_unix_seconds(1_005_477_060).unwrap_or(AnalysisTime::UNIX_EPOCH);
        let one = self.uri(AnalysisTime::UNIX_EPOCH, 0)?;
        let other = self.uri(other, 11)?;
        let mut root = 0;
        for ((at, a), b) in one.char_indices().zip(other.chars()) {
            if a != b {
                break;
            }
            if a == '/' {
                root = at;
            }
        }
        Ok(one[..root].to_owned())
    }
}

pub(super) fn resolve(
    uri_args: Option<&UriArgs>,
    template: Option<&str>,
    analysis_time: AnalysisTime,
    member: u32,
) -> Result<String, UriError> {
    let uri = match (uri_args, template) {
        (None, None) => return Err(UriError::Missing),
        (Some(_), Some(_)) => return Err(UriError::Both),
        (Some(args), None) => {
            let base = base_uri(&args.bucket_name)?;
            let path = dataset_path(args, analysis_time, member).relative_path()?;
            format!("{base}/{path}")
        }
        (None, Some(template)) => fill(template, analysis_time, member)?,
    };
    check(&uri)?;
    Ok(uri)
}

/// The dataset path that the configured parts make for one analysis time and member.
fn dataset_path(args: &UriArgs, analysis_time: AnalysisTime, member: u32) -> DatasetPath {
    DatasetPath {
        model_name: args.model_name.clone(),
        model_config: args.model_config.clone(),
        bbox: args.bbox,
        resolution: args.resolution,
        analysis_time,
        member,
        data_kind: args.data_kind.clone(),
    }
}

/// A bare name is a bucket of S3; anything with a scheme, or a relative path, stands for itself.
fn base_uri(bucket_name: &str) -> Result<String, UriError> {
    if bucket_name.contains("://") || bucket_name.starts_with(RELATIVE) {
        check(bucket_name)?;
        return Ok(bucket_name.trim_end_matches('/').to_owned());
    }
    let plain =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let starts_well = bucket_name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match starts_well && bucket_name.chars().all(plain) {
        true => Ok(format!("s3://{bucket_name}")),
        false => Err(UriError::Bucket(bucket_name.to_owned())),
    }
}

fn fill(template: &str, analysis_time: AnalysisTime, member: u32) -> Result<String, UriError> {
    let brace = || UriError::Brace(template.to_owned());
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, from_brace) = rest.split_at(open);
        filled.push_str(before);
        let inside = from_brace.strip_prefix('{').ok_or_else(brace)?;
        let (name, after) = inside.split_once('}').ok_or_else(brace)?;
        let (what, form) = match name.split_once(':') {
            Some((what, form)) => (what, Some(form)),
            None => (name, None),
        };
        let text = match (what, form) {
            (ANALYSIS_TIME, None) => Some(analysis_time.path_text()),
            (ANALYSIS_TIME, Some(form)) => analysis_time.formatted(form),
            (MEMBER, None) => Some(member.to_string()),
            (MEMBER, Some(form)) => padded(member, form),
            _ => return Err(UriError::Placeholder(name.to_owned())),
        };
        filled.push_str(&text.ok_or_else(|| UriError::Form(name.to_owned()))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A member with leading zeros: `03` is the form of `007`.
pub(super) fn padded(member: u32, form: &str) -> Option<String> {
    let width = form.strip_prefix('0')?;
    let width: usize = match width.as_bytes() {
        [b'1'..=b'9'] => width.parse().ok()?,
        _ => return None,
    };
    Some(format!("{member:0width$}"))
}

/// Whether a template has the member in it, in whatever form.
pub(super) fn names_member(template: &str) -> bool {
    let mut placeholders = template.split('{').skip(1);
    placeholders.any(|text| {
        let rest = text.strip_prefix(MEMBER);
        rest.is_some_and(|rest| rest.starts_with(['}', ':']))
    })
}

/// What a template says of the analysis time.
fn form_of_time(template: &str) -> Option<String> {
    let placeholders = template.split('{').skip(1);
    let forms: Vec<&str> = placeholders
        .filter_map(|text| {
            let (name, _) = text.split_once('}')?;
            match name.strip_prefix(ANALYSIS_TIME)? {
                "" => Some(AnalysisTime::PATH_FORM),
                form => form.strip_prefix(':'),
            }
        })
        .collect();
    (!forms.is_empty()).then(|| forms.join(" "))
}

fn check(uri: &str) -> Result<(), UriError> {
    let relative = uri.strip_prefix(RELATIVE).map(|path| ("file", path));
    let (scheme, rest) = relative
        .or_else(|| {
            uri.split_once("://")
                .filter(|(scheme, _)| SCHEMES.contains(scheme))
        })
        .ok_or_else(|| UriError::Scheme(uri.to_owned()))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(UriError::Credentials);
    }
    let special = |c: char| {
        c.is_control() || c.is_whitespace() || matches!(c, '?' | '#' | '%' | '\\' | '{' | '}')
    };
    if rest.contains(special) || rest.split('/').any(|part| part == ".." || part == ".") {
        return Err(UriError::Characters(uri.to_owned()));
    }
    let placed = match scheme {
        _ if relative.is_some() => !rest.is_empty(),
        "file" => authority.is_empty() && !path.is_empty(),
        _ => !authority.is_empty(),
    };
    match placed {
        true => Ok(()),
        false => Err(UriError::Authority(uri.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(uri_args: Option<UriArgs>, uri: Option<&str>) -> Input {
        Input {
            from: None,
            uri_args,
            uri: uri.map(str::to_owned),
            internal_path: "/volume/a.zarr".into(),
            datastore_inputs: Vec::new(),
            convert: None,
        }
    }

    fn args(bucket_name: &str) -> UriArgs {
        UriArgs {
            bbox: "w-10p0_s50_e10p0_n60p0".parse().unwrap(),
            resolution: "dx2p5km_dy2p5km".parse().unwrap(),
            data_kind: "surface".into(),
            model_name: "harmonie".into(),
            model_config: "dini".into(),
            bucket_name: bucket_name.into(),
        }
    }

    fn time() -> AnalysisTime {
        "2025-09-22T12:00Z".parse().unwrap()
    }

    #[test]
    fn parts_make_the_uri_of_a_dataset() {
        let path = "harmonie/dini/w-10p0_s50_e10p0_n60p0/dx2p5km_dy2p5km/2025-09-22T1200Z/\
                    member3/surface.zarr";
        for (bucket, base) in [
            ("forecast-data-public", "s3://forecast-data-public"),
            ("gs://bucket", "gs://bucket"),
            ("s3://bucket/below/", "s3://bucket/below"),
            ("file:///data", "file:///data"),
            ("./demo/store", "./demo/store"),
        ] {
            let uri = input(Some(args(bucket)), None).uri(time(), 3);
            assert_eq!(uri, Ok(format!("{base}/{path}")));
        }
    }

    #[test]
    fn the_root_of_an_output_is_the_same_for_all_times_and_members() {
        let root = |uri: &str| {
            let yaml = format!("{{internal_path: /out, uri: '{uri}'}}");
            let output: Output = crate::yaml::parse(&yaml, "x").unwrap();
            output.root().unwrap()
        };
        assert_eq!(root("s3://b/m/{analysis_time}/x.zarr"), "s3://b/m");
        assert_eq!(root("s3://b/m/member{member}.zarr"), "s3://b/m");
        assert_eq!(root("s3://b/m/{member:03}/x.zarr"), "s3://b/m");
        assert_eq!(root("s3://b/{analysis_time:%Y%m%d}/x.zarr"), "s3://b");
        assert_eq!(root("s3://b/{analysis_time}.zarr"), "s3://b");
        assert_eq!(root("./published/x.zarr"), "./published");
        assert_eq!(root("file:///data/1{member}/a/b.zarr"), "file:///data");
    }

    #[test]
    fn a_template_is_filled() {
        for (template, expected) in [
            (
                "s3://b/{analysis_time}/m{member}.zarr",
                "s3://b/2025-09-22T1200Z/m3.zarr",
            ),
            ("file:///data/fixed.zarr", "file:///data/fixed.zarr"),
            ("gs://b/{member}/{member}", "gs://b/3/3"),
            (
                "./store/{analysis_time}.zarr",
                "./store/2025-09-22T1200Z.zarr",
            ),
            (
                "s3://b/{analysis_time:%Y%m%d_%H%M}/state_{member:03}.pkl",
                "s3://b/20250922_1200/state_003.pkl",
            ),
        ] {
            let uri = input(None, Some(template)).uri(time(), 3);
            assert_eq!(uri.as_deref(), Ok(expected));
        }
    }

    #[test]
    fn the_form_of_the_time_in_a_place_is_known() {
        for (template, expected) in [
            (
                "s3://b/{analysis_time}/m{member}.zarr",
                Some("%Y-%m-%dT%H%MZ"),
            ),
            (
                "s3://b/{analysis_time:%Y%m%d}_0000/{member:03}",
                Some("%Y%m%d"),
            ),
            (
                "./{analysis_time:%Y}/{analysis_time:%m%d}.zarr",
                Some("%Y %m%d"),
            ),
            ("./store/member{member}.zarr", None),
            ("./store/fixed.zarr", None),
        ] {
            let found = input(None, Some(template)).dated();
            assert_eq!(found.as_deref(), expected, "{template}");
            assert!(found.is_none_or(|form| time().formatted(&form).is_some()));
        }
        let path = input(Some(args("b")), None).dated();
        assert_eq!(path.as_deref(), Some("%Y-%m-%dT%H%MZ"));
    }

    #[test]
    fn what_is_not_a_place_is_refused() {
        let template = |text: &str| input(None, Some(text)).uri(time(), 0).unwrap_err();
        assert_eq!(
            template("s3://b/{time}"),
            UriError::Placeholder("time".into())
        );
        assert!(
            template("s3://b/{time}")
                .to_string()
                .contains("{analysis_time} and {member}")
        );
        for form in [
            "member:3",
            "member:0",
            "member:010",
            "member:",
            "member:03x",
            "analysis_time:%s",
            "analysis_time:%Y%",
            "analysis_time:",
            "analysis_time:daily",
        ] {
            let error = template(&format!("s3://b/{{{form}}}"));
            assert_eq!(error, UriError::Form(form.into()));
        }
        for text in ["s3://b/{member", "s3://b/member}", "s3://b/{{member}}"] {
            let error = template(text);
            assert!(
                matches!(error, UriError::Brace(_) | UriError::Placeholder(_)),
                "{text}"
            );
        }
        for text in [
            "/data/a.zarr",
            "data",
            "http://host/a",
            "S3://b/a",
            "s3:/b",
            "",
        ] {
            assert_eq!(template(text), UriError::Scheme(text.into()));
        }
        for text in [
            "s3:///a",
            "gs://",
            "file://host/a",
            "file://",
            "file:///",
            "./",
        ] {
            assert_eq!(template(text), UriError::Authority(text.into()));
        }
        for text in [
            "s3://b/../a",
            "s3://b/a?x=1",
            "file:///a b",
            "s3://b/a%2e",
            "s3://b/a\n",
            "./../a",
            "./a/./b",
        ] {
            assert_eq!(template(text), UriError::Characters(text.into()));
        }
        assert_eq!(template("s3://me:secret@b/a"), UriError::Credentials);

        let bucket = |name: &str| input(Some(args(name)), None).uri(time(), 0).unwrap_err();
        for name in ["", "a/b", "Bucket", "-b", "a b", "a@b"] {
            assert_eq!(bucket(name), UriError::Bucket(name.into()));
        }
        assert_eq!(bucket("ftp://b"), UriError::Scheme("ftp://b".into()));
        assert_eq!(input(None, None).uri(time(), 0), Err(UriError::Missing));
        let both = input(Some(args("b")), Some("s3://b/a"));
        assert_eq!(both.uri(time(), 0), Err(UriError::Both));
        let mut climbing = args("b");
        climbing.model_name = "..".into();
        let climbing = input(Some(climbing), None).uri(time(), 0);
        assert!(matches!(climbing, Err(UriError::Path(_))));
    }
}
