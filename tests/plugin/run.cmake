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

# A wrong rule is caught, rolled back and named, alone and as a member of simplify; nothing is written.
foreach(pass IN ITEMS wrong_rule simplify)
  set(command ${COMMAND} --plugin ${WORK}/build/wrong_rule.so compress ${SOURCE}/testdata/digits_mlp.onnx
      -o ${WORK}/wrong.onnx --report ${WORK}/report.json --passes ${pass})
  file(REMOVE ${WORK}/wrong.onnx ${WORK}/report.json)
  run(1 text ${command})
  expect("${text}" "${pass} was rolled back: declared effect 'exact', but output 'logits' is not bit-equal")
  file(READ ${WORK}/report.json report)
  string(JSON name GET "${report}" passes 0 pass)
  string(JSON rolled_back GET "${report}" passes 0 rolled_back)
  string(JSON counts GET "${report}" passes 0 counts)
  if(NOT name STREQUAL pass OR NOT rolled_back)
    message(FATAL_ERROR "expected a report that ${pass} was rolled back, found: ${name}, ${rolled_back}")
  endif()
  expect("${counts}" "forget_relu\" : 2")
  if(EXISTS ${WORK}/wrong.onnx)
    message(FATAL_ERROR "a model was written although ${pass} was rolled back")
  endif()
  run(0 text ${command} --keep-going)
  expect("${text}" "${pass} was rolled back")
  run(0 text ${COMMAND} compare ${SOURCE}/testdata/digits_mlp.onnx ${WORK}/wrong.onnx
      --data ${SOURCE}/testdata/digits_test.npz --min-agreement 100%)
endforeach()

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
