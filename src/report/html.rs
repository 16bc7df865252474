use super::charts::Drawing;
use super::figures::Figures;
use super::view::View;
use crate::base::error::Result;
pub fn render(_: &View<'_>, _: &Figures, _: &[Drawing]) -> Result<String> {
    Ok(String::new())
}
