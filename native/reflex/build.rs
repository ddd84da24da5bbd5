//! Compiles bpf/synapse.bpf.c with clang, and writes down for `layout.rs` what bpf/shared.h says: sizes and counter
//! names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Tried in this order, unless the variable CLANG names one. 16 is the first whose code the verifier accepts.
const COMPILERS: [&str; 6] = ["clang-16", "clang-17", "clang-18", "clang-19", "clang-20", "clang"];

fn main() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-changed={}", sources.display());
    compile(&sources.join("synapse.bpf.c"), &out.join("synapse.bpf.o"));
    let header = fs::read_to_string(sources.join("shared.h")).expect("bpf/shared.h is there");
    fs::write(out.join("shared.rs"), shared(&header)).expect("cargo's folder is writable");
}

fn compile(source: &Path, object: &Path) {
    let named = env::var("CLANG").ok();
    let candidates: Vec<&str> = named.as_deref().map_or(COMPILERS.to_vec(), |it| vec![it]);
    let works = |it: &&str| Command::new(it).arg("--version").output().is_ok_and(|it| it.status.success());
    let Some(clang) = candidates.iter().copied().find(works) else {
        panic!(
            "no clang found (tried {}): install clang 16 or newer and libbpf-dev, or name one by CLANG=...",
            candidates.join(", ")
        );
    };
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let done = Command::new(clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-Wno-unused-function"])
        .args(["-idirafter", &format!("/usr/include/{architecture}-linux-gnu")])
        .args([Path::new("-c"), source, Path::new("-o"), object])
        .status();
    assert!(done.is_ok_and(|it| it.success()), "{clang} could not compile {}: see its words above", source.display());
}

/// `ASSERT_SIZE(struct x, n)` as constants, `COUNTERS_OF` as names in order.
fn shared(header: &str) -> String {
    let mut text = String::new();
    for line in header.lines() {
        if let Some((name, size)) = line
            .strip_prefix("ASSERT_SIZE(struct ")
            .and_then(|it| it.strip_suffix(");"))
            .and_then(|it| it.split_once(", "))
        {
            text += &format!("/// Bytes of `struct {name}`.\npub const {}: usize = {size};\n", name.to_uppercase());
        }
    }
    let names: Vec<String> = header
        .split("X(")
        .skip(1) // what stands before the first one
        .filter_map(|it| it.split_once(')'))
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    text + &format!(
        "/// Names of the counters, in order.\npub const COUNTERS: [&str; {}] = [{}];\n",
        names.len(),
        names.join(", ")
    )
}
