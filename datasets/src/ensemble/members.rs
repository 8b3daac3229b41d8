//! Adds members to the products of an ensemble, and writes the products.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlwm_spec::Digest;
use serde_json::{Map, Value, json};

use super::addition::Addition;
use super::block::{Kept, POINTS};
use super::state::{Codecs, Header, StateReader};
use super::{EnsembleError, Product, product};
use crate::Dataset;
use crate::forecast_store::{
    ForecastStore, Layout, Rules, StoreError, StoredAs, WindowSource, Written,
};

/// The products of an ensemble: what is made of which variable.
///
/// ```text
/// for each member, each window:  add(…, member, digest, window, dataset)
/// for each window, at the end:   write_window(…, window, members, …)
/// ```
#[derive(Debug)]
pub struct Ensemble<'a> {
    /// How the members' forecasts lie in time and space.
    pub(super) store: &'a ForecastStore,
    products: BTreeMap<String, Vec<Product>>,
}

impl<'a> Ensemble<'a> {
    /// Declares the products of variables. `store` is the plan of any member's store: it tells the
    /// variables, the schedule, and where values may be missing.
    ///
    /// # Errors
    /// [`EnsembleError::Product`] for products that cannot be made, or twice the same;
    /// [`EnsembleError::Store`] for a variable that the store does not have.
    pub fn new(
        store: &'a ForecastStore,
        products: BTreeMap<String, Vec<Product>>,
    ) -> Result<Self, EnsembleError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (variable, products) in &products {
            store.layout(variable)?;
            let refuse = |reason: String| EnsembleError::Product {
                variable: variable.clone(),
                reason,
            };
            if products.is_empty() {
                return Err(refuse("none are declared; name some".to_owned()));
            }
            for product in products {
                let name = product.name(variable);
                if let Some(reason) = product::fault(product) {
                    return Err(refuse(reason));
                }
                if !names.insert(name.clone()) {
                    return Err(refuse(format!("`{name}` is declared twice")));
                }
            }
        }
        Ok(Self { store, products })
    }

    /// The most bytes that the files of a window take when so many members are included. While one
    /// is added, the file of one variable is there twice.
    pub fn expected_bytes(&self, window: u64, members: usize) -> u64 {
        let steps = self.store.windows.steps(window);
        let of = |(name, products): (&String, &Vec<Product>)| {
            let points = self
                .store
                .layout(name)
                .map_or(0, |(_, layout)| layout.points());
            let plane = Kept::of(products).plane_bytes(points, members);
            // The header: a digest for each member.
            (steps.end - steps.start) * plane + 1024 + members as u64 * 96
        };
        self.products.iter().map(of).sum()
    }

    /// The path of the file of a variable and window, in a folder.
    pub fn path(&self, folder: &Path, variable: &str, window: u64) -> PathBuf {
        folder.join(format!("{variable}.{window:04}.ensemble"))
    }

    /// The members that are included in all files of a window, with the digests of their content.
    ///
    /// # Errors
    /// [`EnsembleError::Damaged`], [`EnsembleError::Other`] or [`EnsembleError::Read`] for a file
    /// that cannot be used.
    pub fn included(
        &self,
        folder: &Path,
        window: u64,
    ) -> Result<BTreeMap<u32, Digest>, EnsembleError> {
        let mut common: Option<BTreeMap<u32, Digest>> = None;
        for variable in self.products.keys() {
            let members = match self.open(folder, variable, window)? {
                Some(file) => file.header.members,
                None => BTreeMap::new(),
            };
            common = Some(match common {
                None => members,
                Some(mut common) => {
                    common.retain(|member, digest| members.get(member) == Some(digest));
                    common
                }
            });
        }
        Ok(common.unwrap_or_default())
    }

    /// Adds a member's finished window; `digest` is that of its content. A member that is included
    /// already is not added again. Each file is replaced at once, so that whatever happens it holds
    /// whole members only; what was interrupted goes on when the same member is added again. Files
    /// of the same window must not be added to at the same time. Returns whether anything was added.
    ///
    /// # Errors
    /// [`EnsembleError::OtherContent`] if the member is included with another digest,
    /// [`EnsembleError::Mixed`] where only some members have a value,
    /// [`EnsembleError::Overflow`] for values above 2³⁰ of which there is to be a mean or spread,
    /// [`EnsembleError::Store`] for a window that could not be published either.
    pub fn add(
        &self,
        folder: &Path,
        member: u32,
        digest: Digest,
        window: u64,
        dataset: &Dataset,
    ) -> Result<bool, EnsembleError> {
        let open = || WindowSource::open(self.store, window, dataset);
        self.add_from(folder, member, digest, window, open)
    }

    /// As [`Self::add`], but reads the window from the member's published store, which must be
    /// finished; of its shards, only those of the products' variables in this window need be there.
    /// So a member is added when it is known to be complete. Values count as they are stored.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_published(
        &self,
        folder: &Path,
        member: u32,
        digest: Digest,
        window: u64,
        published: &Dataset,
    ) -> Result<bool, EnsembleError> {
        let open = || WindowSource::published(self.store, window, published);
        self.add_from(folder, member, digest, window, open)
    }

    fn add_from<'w>(
        &self,
        folder: &Path,
        member: u32,
        digest: Digest,
        window: u64,
        open: impl FnOnce() -> Result<WindowSource<'w>, StoreError>,
    ) -> Result<bool, EnsembleError> {
        let mut due = Vec::new();
        for (variable, products) in &self.products {
            let file = self.open(folder, variable, window)?;
            let included = file
                .as_ref()
                .and_then(|file| file.header.members.get(&member));
            match included {
                None => due.push((variable, products)),
                Some(included) if *included == digest => {}
                Some(included) => {
                    return Err(EnsembleError::OtherContent {
                        path: self.path(folder, variable, window),
                        member,
                        included: *included,
                        given: digest,
                    });
                }
            }
        }
        if due.is_empty() {
            return Ok(false);
        }
        let source = open()?;
        for (variable, products) in due {
            let addition = Addition {
                ensemble: self,
                folder,
                variable,
                kept: Kept::of(products),
                member,
                digest,
            };
            addition.run(&source, window)?;
        }
        Ok(true)
    }

    /// The store of the products: variables like `t2m_mean`, `t2m_p90`, coordinates like those of
    /// the members. Its group has the attribute `ensemble_members`.
    ///
    /// # Errors
    /// [`EnsembleError::Product`] for a spread of fewer than two members.
    pub fn store(
        &self,
        members: &BTreeSet<u32>,
        attributes: &Map<String, Value>,
    ) -> Result<ForecastStore, EnsembleError> {
        let mut store = self.store.clone();
        store.variables = BTreeMap::new();
        for (variable, products) in &self.products {
            let (_, layout) = self.store.layout(variable)?;
            for product in products {
                if *product == Product::Spread && members.len() < 2 {
                    return Err(EnsembleError::Product {
                        variable: variable.clone(),
                        reason: format!("{} members have no spread", members.len()),
                    });
                }
                let layout = Layout {
                    attributes: product::attributes(product, variable, &layout.attributes),
                    rules: Rules {
                        stored: StoredAs::Float32,
                        may_be_missing: layout.rules.may_be_missing.clone(),
                        range: None,
                    },
                    ..layout.clone()
                };
                store.variables.insert(product.name(variable), layout);
            }
        }
        let numbers: Vec<u32> = members.iter().copied().collect();
        store.attributes.extend(attributes.clone());
        store
            .attributes
            .insert("ensemble_members".to_owned(), json!(numbers));
        Ok(store)
    }

    /// Writes a window of the products into the folder of their store, which [`Self::store`] made.
    /// The files of the accumulation stay.
    ///
    /// # Errors
    /// [`EnsembleError::Members`] unless exactly these members are included,
    /// [`EnsembleError::Damaged`] for a file that is not as it was written.
    pub fn write_window(
        &self,
        folder: &Path,
        window: u64,
        members: &BTreeSet<u32>,
        store: &ForecastStore,
        target: &Path,
    ) -> Result<Vec<Written>, EnsembleError> {
        store.check_window(window)?;
        let mut written = Vec::new();
        for (variable, products) in &self.products {
            let path = self.path(folder, variable, window);
            let file = self.open(folder, variable, window)?;
            let there = file
                .as_ref()
                .map(|file| file.header.members.keys().copied());
            let there: BTreeSet<u32> = there.into_iter().flatten().collect();
            let Some(mut file) = file.filter(|_| there == *members) else {
                return Err(EnsembleError::Members {
                    path,
                    difference: difference(&there, members),
                });
            };
            let (_, layout) = self.store.layout(variable)?;
            let kept = file.header.kept.clone();
            let codecs = codecs(variable, &kept)?;
            let mut shards = products
                .iter()
                .map(|product| store.shard(target, &product.name(variable), window))
                .collect::<Result<Vec<_>, _>>()?;
            for step in self.store.windows.steps(window) {
                let mut planes: Vec<Vec<f64>> = vec![Vec::new(); products.len()];
                for points in blocks(layout.points() as usize) {
                    let block = file.block(points, &codecs)?;
                    for (plane, product) in planes.iter_mut().zip(products) {
                        plane.extend(block.product(&kept, product));
                    }
                }
                for (shard, plane) in shards.iter_mut().zip(&planes) {
                    shard.push(plane, &store.lead(step))?;
                }
            }
            file.end()?;
            for (shard, product) in shards.into_iter().zip(products) {
                written.push(Written {
                    path: store.shard_path(&product.name(variable), window)?,
                    bytes: shard.finish()?,
                });
            }
        }
        written.sort();
        Ok(written)
    }

    /// Opens the file of a variable and window, if there is one and it is about the same.
    pub(super) fn open(
        &self,
        folder: &Path,
        variable: &str,
        window: u64,
    ) -> Result<Option<StateReader>, EnsembleError> {
        let path = self.path(folder, variable, window);
        let Some(file) = StateReader::open(&path)? else {
            return Ok(None);
        };
        let mut due = self.header(variable, window)?;
        due.members = file.header.members.clone();
        match file.header == due {
            true => Ok(Some(file)),
            false => Err(EnsembleError::Other {
                path,
                reason: "another forecast, shape or choice of products".to_owned(),
            }),
        }
    }

    /// The header of a file without members.
    pub(super) fn header(&self, variable: &str, window: u64) -> Result<Header, EnsembleError> {
        self.store.check_window(window)?;
        let (_, layout) = self.store.layout(variable)?;
        let products = self.products.get(variable).map_or(&[][..], Vec::as_slice);
        let steps = self.store.windows.steps(window);
        Ok(Header {
            analysis_time: self.store.windows.analysis_time(),
            variable: variable.to_owned(),
            window,
            first_lead: self.store.windows.lead_seconds(steps.start),
            steps: steps.end - steps.start,
            plane: layout.inner(),
            kept: Kept::of(products),
            members: BTreeMap::new(),
        })
    }
}

pub(super) fn codecs(variable: &str, kept: &Kept) -> Result<Codecs, EnsembleError> {
    Codecs::new(kept).map_err(|reason| {
        let variable = variable.to_owned();
        StoreError::Compress { variable, reason }.into()
    })
}

/// The points in each block of a plane.
fn blocks(points: usize) -> impl Iterator<Item = usize> {
    (0..points)
        .step_by(POINTS)
        .map(move |start| POINTS.min(points - start))
}

/// Which members are missing, and which are too many.
fn difference(there: &BTreeSet<u32>, due: &BTreeSet<u32>) -> String {
    let list = |members: Vec<&u32>| {
        let members: Vec<String> = members.into_iter().map(u32::to_string).collect();
        members.join(", ")
    };
    let missing = list(due.difference(there).collect());
    let extra = list(there.difference(due).collect());
    match (missing.is_empty(), extra.is_empty()) {
        (false, true) => format!("{missing} missing"),
        (true, _) => format!("{extra} too many"),
        (false, false) => format!("{missing} missing, {extra} too many"),
    }
}
