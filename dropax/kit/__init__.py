"""What any transform of records needs: keys, ids, batches, state, configs, operators."""
