#[allow(dead_code)] mod common;
use mlwm_artifacts::*;
#[test] fn t() {
    let a = Artifact::open("/work/shared/cases/neural-lam/artifact/tiny-graph-lam.zip".as_ref()).unwrap();
    assert_eq!(a.files().len(), 54 , "{}", a.files().len());
}
#[test] fn u() {
    let a = Artifact::open("/work/shared/cases/neural-lam/artifact/tiny-graph-lam.zip".as_ref()).unwrap();
    println!("{} {:?} {}", a.name(), a.datastores().unwrap().len(), a.verify().unwrap_err());
    a.extract_to("/tmp/helper-ref".as_ref()).unwrap();
    let r = common::request(&common::case(), "/tmp/helper-built".as_ref());
    let b = build(&r).unwrap(); println!("{:?}", b.digest);
    // timing
    let big = "/tmp/helper-big.ckpt"; 
    let mut r = r; r.checkpoint = Some(big.into()); r.output = "/tmp/helper-built/big.zip".into();
    let t = std::time::Instant::now(); let b = build(&r).unwrap(); println!("build {:?} {}", t.elapsed(), b.bytes);
    let t = std::time::Instant::now(); Artifact::open(&b.path).unwrap().verify().unwrap(); println!("verify {:?}", t.elapsed());
}
