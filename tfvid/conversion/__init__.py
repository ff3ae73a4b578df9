"""Published checkpoints -> models, without executing anything in them.

Readers give {name: np.ndarray}: `tf1_checkpoint` (TensorFlow 1), `torch_file` (PyTorch,
both formats), `safetensors_file`. `assign` fills a model from them. A method that has
checkpoints has a module `tfvid.models.<method>.convert`, listed in `convert.CONVERTERS`:

    variable_map(model) -> {variable path: source name or `assign.Source`}
    is_ignorable(name)  -> whether the model has no use for an entry of the file
    read_source(path)   -> {name: array}; without it: a PyTorch file, flattened
    is_optional(path)   -> variables that a file may lack (what only training needs);
                           without it: none
    data_spec(hparams)  -> {key: tf.TensorSpec} of the data of the published model, for
                           users without the data; without it: `data_spec.published_spec`
"""
