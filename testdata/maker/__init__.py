"""Makes the models and data of testdata/: data sets, networks, training, export, expected outputs."""
