//! The choice among the instruction sets.

use super::error::Error;
use super::scalar;
use super::tile::Table;

/// Best last.
#[cfg(target_arch = "x86_64")]
static TABLES: &[&Table] =
    &[&scalar::TABLE, &super::x86_avx2::TABLE, &super::x86_avxvnni::TABLE, &super::x86_avx512vnni::TABLE];

/// Best last.
#[cfg(target_arch = "aarch64")]
static TABLES: &[&Table] = &[&scalar::TABLE, &super::aarch64_neon::TABLE, &super::aarch64_dotprod::TABLE];

#[cfg(target_arch = "arm")]
static TABLES: &[&Table] = &[&scalar::TABLE, &super::armv7::TABLE];

/// Best last.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
static TABLES: &[&Table] = &[&scalar::TABLE];

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy)]
pub struct Isa(pub(super) &'static Table);

impl Isa {
    /// The fastest that this processor has, or the one that the environment variable `OUTLIERD_ISA` names.
    ///
    /// # Errors
    /// The variable names an instruction set that does not exist for this architecture, or not on this processor.
    pub fn detect() -> Result<Isa, Error> {
        match std::env::var("OUTLIERD_ISA") {
            Ok(name) if !name.is_empty() => Isa::named(&name),
            _ => Ok(Isa::available().last().copied().unwrap_or(Isa(&scalar::TABLE))),
        }
    }

    /// The one of this name: `scalar`; `avx2`, `avxvnni`, `avx512vnni`; `neon`, `dotprod`.
    ///
    /// # Errors
    /// As [`Isa::detect`].
    pub fn named(name: &str) -> Result<Isa, Error> {
        let Some(table) = TABLES.iter().find(|t| t.name == name) else {
            let known: Vec<_> = TABLES.iter().map(|t| t.name).collect();
            return Err(Error::UnknownIsa(name.into(), known.join(", ")));
        };
        if !(table.supported)() {
            let have: Vec<_> = Isa::available().iter().map(Isa::name).collect();
            return Err(Error::UnsupportedIsa(name.into(), have.join(", ")));
        }
        Ok(Isa(table))
    }

    /// All that this processor has, best last; `scalar` is always there.
    pub fn available() -> Vec<Isa> {
        TABLES.iter().filter(|t| (t.supported)()).map(|t| Isa(t)).collect()
    }

    /// All that the order of packed weights depends on.
    pub fn layout(&self) -> String {
        let Table { name, nr, kr, depth_step, shift, saturates, gather, .. } = self.0;
        format!("{name} {nr} {kr} {depth_step} {shift} {saturates} {}", gather.is_some())
    }

    /// The name as `OUTLIERD_ISA` takes it.
    pub fn name(&self) -> &'static str {
        self.0.name
    }
}
