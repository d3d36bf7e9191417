from setuptools import find_packages, setup

# The configs lie beside the package, where people look for them, and are installed inside it.
setup(
    packages=[*find_packages(include=["bcnet", "bcnet.*"]), "bcnet.configs"],
    package_dir={"bcnet.configs": "configs"},
    package_data={"bcnet": ["py.typed", "models/*.safetensors"], "bcnet.configs": ["*.yaml", "*/*.yaml"]},
)
