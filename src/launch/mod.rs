//! Where runs execute: what they share is prepared once, each arm × seed is trained and scored, and its rows
//! are written as they are made.

mod compare;
mod device;
mod memory;
mod observer;
mod prepare;
mod rows;
mod run;
mod world_base;

pub use compare::{Finished, compare};
pub use device::device;
pub use memory::PeakMemory;
pub use observer::{Observer, Silent};
pub use prepare::{Prepared, TrainingSet, prepare};
pub use run::{Trained, scored, trained};
