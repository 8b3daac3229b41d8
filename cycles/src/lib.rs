//! Plan an analysis time and run it.
//!
//! [`load`] reads configurations and the artifacts they name; [`plan`] turns them into a list of
//! tasks without touching disk, clock or network; [`run`] carries a plan out: stage, check, run the
//! container, check again, publish. Nothing here prints: what happens is told through [`Event`]s.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod claim;
mod complete;
mod container;
mod credentials;
mod disk;
mod ending;
mod ensemble;
mod error;
mod event;
mod expect;
mod golden;
mod gpu_memory;
mod graph;
mod grib;
mod history;
mod kept;
mod load;
mod log;
mod machine;
mod made;
mod output;
mod place;
mod plan;
mod preflight;
mod prices;
mod progress;
mod provenance;
mod publication;
mod quarantine;
mod rebuild;
mod record;
mod replay;
mod report;
mod retry;
mod run;
mod scratch;
mod space;
mod spans;
mod task;
mod under_way;
mod usual;
mod warm;
mod work;

pub use credentials::credentials_end;
pub use error::Error;
pub use event::{Event, Outcome, Phase, TaskReport};
pub use expect::{Expectation, input_sizes};
pub use golden::{Comparison, GoldenOptions, GoldenReport, test_image};
pub use gpu_memory::GpuMemoryError;
pub use graph::{GraphForm, graph};
pub use history::{ledger_file, note_killed};
pub use load::{
    ArtifactFacts, Artifacts, Loaded, load, load_offline, load_parts, load_parts_offline, names,
    read,
};
pub use machine::Budget;
pub use plan::{
    Plan, PlanOptions, PlannedConverter, PlannedEnsemble, PlannedInput, PlannedOutput,
    PlannedProducts, PlannedTask, plan,
};
pub use prices::{Cost, InvalidPrice, Price, Prices};
pub use progress::{KnownFrom, Rates, RunProgress, Running};
pub use provenance::statement;
pub use rebuild::{Rebuilt, rebuild};
pub use replay::{Difference, ReplayReport, replay};
pub use report::{DiskUse, ReportedTask, RunCost, RunReport, Summary, Totals};
pub use run::{RunOptions, Tell, run};
pub use spans::Idle;
