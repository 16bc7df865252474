use super::input::Input;
use crate::base::error::Result;
#[derive(Clone, Debug)]
pub struct Difference;
pub fn check_input(_: &Input, _: &std::path::Path) -> Result<Vec<Difference>> {
    Ok(vec![])
}
pub fn check(_: &std::path::Path) -> Result<Vec<Difference>> {
    Ok(vec![])
}
