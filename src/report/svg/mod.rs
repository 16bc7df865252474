//! Drawing: a canvas on plotters' SVG backend, panels with axes, colours and markers, PNG from the SVG.

pub mod axis;
pub mod canvas;
pub mod palette;
pub mod panel;
pub mod png;
