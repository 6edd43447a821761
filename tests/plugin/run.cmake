# Installs the headers, builds the plugin against them in a folder of its own, and runs the host with it.
# Needs: BUILD, SOURCE, WORK, HOST, COMMAND, WRONG_ABI, NO_PLUGIN, COMPILER, FLAGS, GENERATOR.

function(run expected_status output)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL expected_status)
    message(FATAL_ERROR "expected status ${expected_status}, found ${status} of: ${ARGN}\n${text}")
  endif()
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

function(expect text part)
  string(FIND "${text}" "${part}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "expected '${part}' in:\n${text}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(0 text ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix --component development)
run(0 text ${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE}/tests/plugin/rename_nodes -B ${WORK}/build
    -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_CXX_COMPILER=${COMPILER} "-DCMAKE_CXX_FLAGS=${FLAGS}")
run(0 text ${CMAKE_COMMAND} --build ${WORK}/build)

set(plugin ${WORK}/build/rename_nodes.so)
run(0 text ${HOST} ${plugin} "rename_nodes{prefix=p_},rename_nodes{prefix=p_}")
expect("${text}" "rename_nodes{prefix=p_} changed=1 failure='' counts={\"renamed\":2}")
expect("${text}" "rename_nodes{prefix=p_} changed=0 failure='' counts={\"renamed\":0}")
expect("${text}" "\"p_relu_1\"")

run(1 text ${HOST} ${plugin} "rename_nodes{prefiks=p_}")
expect("${text}" "pass 'rename_nodes': unknown option 'prefiks'; did you mean 'prefix'?")

run(0 text ${COMMAND} --plugin ${plugin} compress ${SOURCE}/testdata/digits_mlp.onnx -o ${WORK}/out.onnx
    --passes "simplify,rename_nodes{prefix=p_}")
expect("${text}" "rename_nodes{prefix=p_}")
run(0 text ${COMMAND} --plugin ${plugin} passes rename_nodes)
expect("${text}" "number the nodes of a model by operator")
run(2 text ${COMMAND} --plugin ${WRONG_ABI} passes)
expect("${text}" "onnxpress-abi/0")

run(1 text ${HOST} ${WRONG_ABI} "rename_nodes")
expect("${text}" "expected 'onnxpress-abi/1 headers=")
expect("${text}" "found 'onnxpress-abi/0 headers=0000000000000000'")

run(1 text ${HOST} ${NO_PLUGIN} "rename_nodes")
expect("${text}" "it does not export 'onnxpress_plugin_abi': not an onnxpress plugin")

run(1 text ${HOST} ${WORK}/none.so "rename_nodes")
expect("${text}" "there is no such file")
file(REMOVE_RECURSE ${WORK})
