# What one does here. `just` comes with the dev extra: pip install -c constraints.txt -e '.[dev]'

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

# Show the recipes
default:
    @just --list --unsorted

# Serve on this machine with keys, tokens and a store of its own under ./.casproxy
dev *flags:
    casproxy dev {{flags}}

# Serve as in production, with a configuration file or directory
run conf *flags:
    casproxy serve --conf {{quote(conf)}} {{flags}}

# Run the tests, or some: `just test casproxy_tests/wire -k window`
test *flags:
    pytest {{flags}}

# Run the tests with another Python, in an environment of its own: `just test-with python3.13`
test-with python *flags:
    {{python}} -m venv build/venv-{{file_name(python)}}
    build/venv-{{file_name(python)}}/bin/pip install -q -e '.[test]'
    build/venv-{{file_name(python)}}/bin/pytest {{flags}}

# Run the tests at full size: long fuzzing, artifacts of 1 GiB
soak *flags:
    CASPROXY_SOAK=1 pytest --timeout=3600 {{flags}}

# Everything a change must pass besides the tests, and the quick tests of the house rules; changes nothing
check: lint
    pytest -q casproxy_tests/architecture

# What needs no test: style, types, the direction of imports, generated files
lint:
    ruff check
    ruff format --check
    mypy
    lint-imports --no-logo
    python contrib/generate_proto.py --check
    buf lint
    buf breaking --against proto/baseline.binpb
    python -m casproxy.config.reference --check
    python -m casproxy.cli.reference --check
    python -m casproxy_tests.faults.page --check

# Regenerate casproxy/_proto from proto/
proto:
    python contrib/generate_proto.py

# Take today's messages as the ones later changes must not break; once per release
proto-baseline:
    buf build -o proto/baseline.binpb

# Regenerate the references of configuration (with its JSON Schema) and commands
config:
    python -m casproxy.config.reference
    python -m casproxy.cli.reference

# Make the site of the documentation: build/site/index.html
docs:
    sphinx-build -E -q -W --keep-going -d build/doctrees docs build/site

# Build the wheel into dist/ and try it in an empty virtual environment
build:
    rm -rf build # setuptools would pack what an earlier build left there
    python -m pip wheel -q --no-deps --wheel-dir dist .
    python -m contrib.check_wheel dist

# Make all that a release consists of into dist/; needs `pip install -e '.[release]'`. `--changelog` writes CHANGELOG.md
release *flags:
    python -m contrib.release {{flags}}

# Build the container image with an engine of yours: `just image`, `just image docker`
image engine="podman":
    {{engine}} build --build-arg VERSION="$(casproxy --version | cut -d ' ' -f 2)" --build-arg REVISION="$(git rev-parse HEAD)" --tag casproxy .

# Build the image without an engine and run it under the chart's terms: root, and apt-get install buildah debootstrap runc
image-test *flags:
    CASPROXY_IMAGE_TEST=1 pytest -n0 -s {{flags}} casproxy_tests/container

# Measure every row of the table of what to reach, below ten minutes: `just bench`, `just bench 1 2 8`, `just bench --full`
bench *flags:
    python -m contrib.bench {{flags}}

# Measure three times on a quiet machine and write medians and spread into docs/explanation/performance.md
bench-page *flags:
    for run in 1 2 3; do python -m contrib.bench --out build/bench/$run {{flags}}; done
    python -m contrib.bench.page build/bench/1/bench.json build/bench/2/bench.json build/bench/3/bench.json

# Make the pictures of the web page in docs/images, light and dark; look at them before committing
screenshots:
    mkdir -p docs/images
    python -m casproxy_tests.browser.screenshots docs/images
