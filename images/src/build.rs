//! Carrying out a plan with the builder of a local engine.

use std::io;

use mlwm_engines::{BuildRequest, Engine, Image};
use mlwm_spec::Digest;

use crate::context;
use crate::error::Error;
use crate::labels;
use crate::plan::ImagePlan;

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its identifier.
    pub id: Digest,
    /// Its reference.
    pub reference: String,
    /// Whether it was there already, made of the same parts.
    pub unchanged: bool,
}

/// Builds the image of a plan, unless the engine has it already. The base image must be in the
/// engine: nothing is pulled. Each line of the builder goes to `on_line`.
pub async fn build(
    engine: &Engine,
    plan: &ImagePlan,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<Built, Error> {
    let (base, reference) = (plan.base.clone(), plan.reference.clone());
    let found = engine.image(&base).await?;
    let Some(found) = found else {
        return Err(Error::BaseMissing { base, reference });
    };
    if plan.base_id.is_some_and(|planned| planned != found.id) {
        return Err(Error::BaseChanged { base, reference });
    }
    if let Some(image) = engine.image(&reference).await?
        && is_of(&image, plan)
    {
        return Ok(Built {
            id: image.id,
            reference,
            unchanged: true,
        });
    }

    let request = BuildRequest {
        tag: reference.clone(),
        dockerfile: context::CONTAINERFILE.to_owned(),
        labels: plan.labels.clone(),
        build_args: [("BASE".to_owned(), base)].into(),
    };
    let (stream, writer) = context::stream(plan.clone());
    let built = engine.build(stream, &request, on_line).await;
    let written = writer.await.unwrap_or_else(|panic| {
        Err(Error::Context {
            reference: reference.clone(),
            source: io::Error::other(panic),
        })
    });
    let id = match (built, written) {
        (Ok(id), Ok(())) => id,
        // The engine gave up first; what it said is the reason.
        (Err(error), Ok(())) => return Err(error.into()),
        (Err(error), Err(Error::Context { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            return Err(error.into());
        }
        (_, Err(error)) => return Err(error),
    };
    check_labels(engine, plan).await?;
    Ok(Built {
        id,
        reference,
        unchanged: false,
    })
}

/// Whether an image is made of the parts of a plan.
fn is_of(image: &Image, plan: &ImagePlan) -> bool {
    let planned = plan.labels.get(labels::BUILD);
    planned.is_some() && image.labels.get(labels::BUILD) == planned
}

async fn check_labels(engine: &Engine, plan: &ImagePlan) -> Result<(), Error> {
    let image = engine.image(&plan.reference).await?;
    let found = image.map(|image| image.labels).unwrap_or_default();
    match plan
        .labels
        .iter()
        .find(|(name, value)| found.get(*name) != Some(value))
    {
        Some((label, _)) => Err(Error::Label {
            reference: plan.reference.clone(),
            label: label.clone(),
        }),
        None => Ok(()),
    }
}
