//! `examples/streaming`: a model in Python that serves all members of an ensemble from one container.

use mlwm_tests::images::example_on_python;
use mlwm_tests::scripted::no_container_left;
use mlwm_tests::site::{Site, oracle};

#[test]
fn the_example_in_python_serves_all_members() {
    let site = Site::new();
    let store = site.path("store");
    let store = store.to_str().unwrap();
    oracle("windows.py", &["make", store, "3", "whole"]);
    let image = example_on_python("streaming", "python-xarray", &["xarray", "zarr"]);
    let yaml = format!(
        "docker_image: {image}
members: 0-2
forecast_duration: PT60H
time_layout: time
retries: 0
timeout: PT5M
inputs:
  state: {{uri: './store/member{{member}}/whole', internal_path: /in/state}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    windows: {{length: PT24H}}
"
    );
    site.configure("danra", &yaml);
    site.mlwm(&["run", "--analysis-time", "2022-04-07T03:00Z"])
        .expect(0, &["published"]);
    for member in ["0", "1", "2"] {
        let name = format!("published/member{member}.zarr");
        let path = site.path(&name);
        oracle("windows.py", &["persists", path.to_str().unwrap(), member]);
        site.mlwm(&["verify", &name])
            .expect(0, &["all as published"]);
    }
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(&site);
}
