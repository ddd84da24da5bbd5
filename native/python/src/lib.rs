//! The Python module `omninervous._native`. Glue only: every function here calls one function of another crate.
//! Its types are declared in `src/omninervous/_native.pyi`, which `make check` compares with this module.

#![deny(unsafe_code)]

mod datapath;
mod engine;
mod reflex;
mod tables;

use pyo3::prelude::*;

/// Native parts of OmniNervous.
#[pymodule]
mod _native {
    use super::pyfunction;

    #[pymodule_export]
    use crate::datapath::NativeDatapath;
    #[pymodule_export]
    use crate::engine::NativeEngine;
    #[pymodule_export]
    use crate::reflex::Reflex;
    #[pymodule_export]
    use crate::tables::Tables;

    /// Whether AES-256-GCM runs on instructions of its own on this processor.
    #[pyfunction]
    fn hardware_aes() -> bool {
        omninervous_engine::cpu::hardware_aes()
    }

    /// Why the program that divides a TAP's frames cannot be loaded; None if it can.
    #[pyfunction]
    fn steering_error() -> Option<String> {
        omninervous_sysio::Steering::load(1).err().map(|it| it.to_string())
    }

    /// Why the reflex lane's programs cannot run in this kernel; None if they can.
    #[pyfunction]
    fn reflex_error() -> Option<String> {
        omninervous_reflex::error()
    }
}
