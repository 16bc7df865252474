//! The command line: one file a verb, which parses, resolves and calls. Data goes to stdout, everything
//! else to stderr; [`Exit`](crate::base::exit::Exit) documents the exit codes.

mod app;
mod args;
mod asked;
mod baseline;
mod bench;
mod compare;
mod data;
mod every;
mod gate;
mod gather;
mod init;
mod interrupt;
mod judge;
mod launcher;
mod merge;
mod methods;
mod output;
mod plan;
mod report;
mod reward;
mod score;
mod screen;
mod suites;
mod tensorboard;
mod train;
mod verify;
mod winrate;

pub use app::main;
