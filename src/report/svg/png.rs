//! PNG by rasterising the very SVG, so that both are one drawing.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::base::error::{Context, Result, anyhow};

/// Pixels of the PNG a pixel of the SVG.
const SCALE: f32 = 2.0;

/// The SVG as PNG at twice its size, in the embedded face (system fonts are not looked at).
pub fn rasterise(svg: &str) -> Result<Vec<u8>> {
    draw(svg)?.encode_png().map_err(|e| anyhow!("encoding a PNG failed: {e}"))
}

fn draw(svg: &str) -> Result<Pixmap> {
    let options = Options { fontdb: fonts(), font_family: "Ubuntu".to_owned(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("a chart's SVG cannot be read back")?;
    let size = tree.size();
    let (w, h) = ((size.width() * SCALE).ceil() as u32, (size.height() * SCALE).ceil() as u32);
    let mut pixmap = Pixmap::new(w, h).with_context(|| format!("a chart of {w} × {h} px cannot be drawn"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    Ok(pixmap)
}

/// Whether `png` shows what `svg` draws. Rounding of single pixels (another processor) is let pass; a mark
/// that moved, or a figure that changed, is not.
pub fn shows(png: &[u8], svg: &str) -> Result<bool> {
    let Ok(found) = Pixmap::decode_png(png) else { return Ok(false) };
    let wanted = draw(svg)?;
    if (found.width(), found.height()) != (wanted.width(), wanted.height()) {
        return Ok(false);
    }
    Ok(found.data().iter().zip(wanted.data()).all(|(a, b)| a.abs_diff(*b) <= 32))
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut database = fontdb::Database::new();
        database.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        Arc::new(database)
    };
    FONTS.get_or_init(load).clone()
}
