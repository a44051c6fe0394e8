"""Metadata of the Python side, for pip; `colcon build` and CMakeLists.txt install the package as a whole."""

from setuptools import find_packages, setup

setup(
    name="saferule",
    version="0.1.0",
    description="Repairs a robot's learned policy in place by safe reinforcement unlearning",
    license="Apache-2.0",
    author="The saferule maintainers",
    author_email="maintainers@saferule.dev",
    python_requires=">=3.10",
    packages=find_packages(include=("saferule_core", "saferule_core.*", "saferule_ros", "saferule_ros.*")),
    # Pip cannot resolve these together with the rest on Python 3.11: requirements-safety-gymnasium.txt says how.
    extras_require={"safety-gymnasium": ["safety-gymnasium==1.0.0"], "onnx": ["onnxruntime>=1.17"]},
    data_files=[("share/ament_index/resource_index/packages", ["resource/saferule"])],
)
