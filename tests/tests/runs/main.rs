//! What a user does with runs of models, steps and ensembles. One executable, so that a test that takes long has others
//! beside it.

mod ai_land;
mod bad_containers;
mod clocks_and_hosts;
mod containers;
mod converters;
mod credentials;
mod cycles;
mod ensemble_inputs;
mod ensemble_kills;
mod ensemble_places;
mod ensemble_products;
mod ensemble_stores;
mod ensembles;
mod faulty_stores;
mod fetch;
mod golden;
mod grib_output;
mod hostile_windows;
mod models;
mod pipelines;
mod program_states;
mod reports;
mod state_models;
mod streaming_example;
mod survives_kills;
mod unsent_windows;
mod warm_containers;
