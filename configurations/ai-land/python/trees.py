"""An ensemble of trees of XGBoost as ONNX, with nothing but what is in its own JSON.

One `TreeEnsembleRegressor` for each target: the trees of one target fit into the cache of a core. Each sums
its trees in their order, in float32, and adds the base score at the end; XGBoost begins with it, so that the
two differ in the last bits.
"""

import json

import onnx
from onnx import TensorProto, helper


def to_onnx(booster, features, targets, input_name, output_name):
    """The model `[point, features]` → `[point, targets]` of an `xgboost.Booster` of so many features."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"]["model"]
    bases = [float(base) for base in learner["learner_model_param"]["base_score"].strip("[]").split(",")]
    if len(bases) == 1:
        bases *= targets
    nodes = []
    for target in range(targets):
        trees = [tree for tree, of in zip(model["trees"], model["tree_info"]) if of == target]
        nodes.append(
            helper.make_node(
                "TreeEnsembleRegressor",
                [input_name],
                [f"target_{target}"],
                domain="ai.onnx.ml",
                n_targets=1,
                base_values=[bases[target]],
                aggregate_function="SUM",
                post_transform="NONE",
                **_ensemble(trees),
            )
        )
    names = [f"target_{target}" for target in range(targets)]
    nodes.append(helper.make_node("Concat", names, [output_name], axis=1))
    tensor = lambda name, columns: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["point", columns])
    graph = helper.make_graph(nodes, "emulator", [tensor(input_name, features)], [tensor(output_name, targets)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def _ensemble(trees):
    """The attributes of trees that split at `value < condition`, where NaN goes its own way."""
    attributes = {
        name: []
        for name in (
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_values",
            "nodes_modes",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_missing_value_tracks_true",
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
        )
    }
    add = lambda **values: [attributes[name].append(value) for name, value in values.items()]
    for number, tree in enumerate(trees):
        if any(tree["split_type"]):
            raise ValueError("a tree splits at categories, which are no numbers")
        for node, left in enumerate(tree["left_children"]):
            is_leaf, condition = left == -1, tree["split_conditions"][node]
            add(
                nodes_treeids=number,
                nodes_nodeids=node,
                nodes_featureids=0 if is_leaf else tree["split_indices"][node],
                nodes_values=0.0 if is_leaf else condition,
                nodes_modes="LEAF" if is_leaf else "BRANCH_LT",
                nodes_truenodeids=0 if is_leaf else left,
                nodes_falsenodeids=0 if is_leaf else tree["right_children"][node],
                nodes_missing_value_tracks_true=0 if is_leaf else tree["default_left"][node],
            )
            if is_leaf:
                add(target_treeids=number, target_nodeids=node, target_ids=0, target_weights=condition)
    return attributes
