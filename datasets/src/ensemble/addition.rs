//! Adds one member to the file of a variable and window.

use std::path::Path;

use mlwm_spec::Digest;

use super::block::{Block, Kept, POINTS, Refused};
use super::members::codecs;
use super::state::StateWriter;
use super::{Ensemble, EnsembleError};
use crate::forecast_store::{Permission, StoreError, WindowSource};

/// The most members of an ensemble.
pub const MAX_MEMBERS: usize = 65_535;

/// The most members of an ensemble with percentiles: their values take 64 MiB of memory, a block of
/// 16,384 points at a time.
pub const MAX_SORTED_MEMBERS: usize = 1024;

/// One member being added to the file of one variable and window.
pub(super) struct Addition<'a> {
    pub(super) ensemble: &'a Ensemble<'a>,
    pub(super) folder: &'a Path,
    pub(super) variable: &'a str,
    pub(super) kept: Kept,
    pub(super) member: u32,
    pub(super) digest: Digest,
}

impl Addition<'_> {
    /// Writes the file anew, with the member.
    pub(super) fn run(&self, source: &WindowSource<'_>, window: u64) -> Result<(), EnsembleError> {
        let (ensemble, variable, kept) = (self.ensemble, self.variable, &self.kept);
        let (_, layout) = ensemble.store.layout(variable)?;
        let codecs = codecs(variable, kept)?;
        let mut before = ensemble.open(self.folder, variable, window)?;
        let mut header = match &before {
            Some(file) => file.header.clone(),
            None => ensemble.header(variable, window)?,
        };
        let limit = if kept.sorted {
            MAX_SORTED_MEMBERS
        } else {
            MAX_MEMBERS
        };
        if header.members.len() >= limit {
            return Err(EnsembleError::TooMany {
                variable: variable.to_owned(),
                members: header.members.len(),
            });
        }
        header.members.insert(self.member, self.digest);
        let path = ensemble.path(self.folder, variable, window);
        let mut after = StateWriter::create(&path, header)?;
        let mut values = Vec::new();
        source.planes(variable, |step, plane| {
            let lead = ensemble.store.lead(step);
            values.clear();
            layout
                .rules
                .singles(plane, &mut values)
                .map_err(|broken| StoreError::value(variable, &lead, broken))?;
            for (number, values) in values.chunks(POINTS).enumerate() {
                let mut block = match &mut before {
                    Some(file) => file.block(values.len(), &codecs)?,
                    None => Block::empty(kept, values.len()),
                };
                let first = number * POINTS;
                let may_mix = |point: usize| match &layout.rules.may_be_missing {
                    Permission::Within(mask) => mask[first + point],
                    Permission::Nowhere | Permission::Anywhere => false,
                };
                block
                    .add(kept, values, may_mix)
                    .map_err(|refused| self.refused(refused, first, &lead))?;
                after.block(&block, &codecs)?;
            }
            Ok::<(), EnsembleError>(())
        })?;
        if let Some(before) = before {
            before.end()?;
        }
        after.complete()
    }

    fn refused(&self, refused: Refused, first: usize, lead: &str) -> EnsembleError {
        let variable = self.variable.to_owned();
        let lead = lead.to_owned();
        match refused {
            Refused::Mixed { point, is_missing } => EnsembleError::Mixed {
                variable,
                member: self.member,
                is_missing,
                lead,
                point: first + point,
            },
            Refused::Overflow { point, value } => EnsembleError::Overflow {
                variable,
                value,
                lead,
                point: first + point,
            },
        }
    }
}
